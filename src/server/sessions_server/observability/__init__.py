"""What operators see: logs without secrets, metrics, readiness, and the ids by which requests are found."""
