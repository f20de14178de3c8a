"""Taking errors out of the groups that task groups put them into."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast


def unwrap(error: BaseException) -> BaseException:
    """Return the one error inside nested groups of one; *error* itself if it is no such group."""
    while isinstance(error, BaseExceptionGroup):
        inner = cast("tuple[BaseException, ...]", error.exceptions)
        if len(inner) != 1:
            break
        error = inner[0]
    return cast("BaseException", error)


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
