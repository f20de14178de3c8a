"""What is told of failures."""

from __future__ import annotations

from sessions_core.errors import SessionsError


def reason_of(error: SessionsError) -> str:
    """Return what *error* says and what its adapter has noted about it, for those who run the systems."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())])
