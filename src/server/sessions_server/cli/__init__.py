"""The command line: ``sessions serve``, ``sessions env …``."""

from sessions_server.cli.main import main

__all__ = ["main"]
