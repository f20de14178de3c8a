"""Runs in this very process."""

from sessions_adapters.local_runs.dispatcher import LocalRunDispatcher

__all__ = ["LocalRunDispatcher"]
