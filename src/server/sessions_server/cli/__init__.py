"""The command line: ``sessions serve``, ``sessions env …``, and what is done over HTTP."""

from sessions_server.cli.main import main

__all__ = ["main"]
