"""The HTTP server and the `sessions` command: one more adapter round sessions_core."""
