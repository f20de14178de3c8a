"""Taking errors out of the groups that task groups put them into."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast


def unwrap(error: BaseException) -> BaseException:
    """Return the one error inside nested groups of one; *error* itself if it is no such group."""
    inner = _only(error)
    return error if inner is None else unwrap(inner)


def _only(error: BaseException) -> BaseException | None:
    if not isinstance(error, BaseExceptionGroup):
        return None
    inner = cast("tuple[BaseException, ...]", error.exceptions)
    return inner[0] if len(inner) == 1 else None


@contextmanager
def unwrapped() -> Generator[None]:
    """Let a single error leave the block as itself, so that callers can name it in ``except``."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = unwrap(group)
        if error is group:
            raise
        raise error from error.__cause__
