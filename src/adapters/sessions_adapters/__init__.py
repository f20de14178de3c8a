"""Adapters that plug technology into the ports of sessions_core, one sub-package each."""
