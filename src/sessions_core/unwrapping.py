"""Taking errors out of the groups that task groups put them into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def unwrap(error: BaseException) -> BaseException:
    """Return the one error inside nested groups of one; *error* itself if it is no such group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@contextmanager
def unwrapped() -> Iterator[None]:
    """Let a single error leave the block as itself, so that callers can name it in ``except``."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = unwrap(group)
        if error is group:
            raise
        raise error from error.__cause__
