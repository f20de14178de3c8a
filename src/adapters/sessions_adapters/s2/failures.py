"""The driver's exceptions, and what callers get instead.

No text of theirs gets into ours; they stay as the cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from s2_sdk import AppendConditionError, S2ClientError, S2Error, S2ServerError

from sessions_core.domain.guard import Guard
from sessions_core.errors import ChannelUnavailableError, StrayCancellationError

FAILURES: Final = (S2Error, OSError, TimeoutError, StrayCancellationError)
"""Whatever the driver may raise."""
NO_STREAM: Final = "stream_not_found"
PASSING: Final = (408, 409, 425, 429)
"""Statuses below 500 that say "not now"."""
EXISTS: Final = "resource_already_exists"


@contextmanager
def translated() -> Iterator[None]:
    """Raise ours instead of the driver's errors."""
    try:
        yield
    except FAILURES as exc:
        raise ChannelUnavailableError from exc


def is_missing(error: BaseException) -> bool:
    """Tell whether S2 says that it has no such stream."""
    return isinstance(error, S2ServerError) and error.status_code == 404 and error.code == NO_STREAM


def is_final(error: BaseException) -> bool:
    """Tell whether the same request would fail in the same way again."""
    if isinstance(error, AppendConditionError):
        return False  # then it is another request that is sent
    if isinstance(error, S2ServerError):
        return 400 <= error.status_code < 500 and error.status_code not in PASSING
    return isinstance(error, S2ClientError) and error.__cause__ is None


def guard_of(token: str) -> Guard:
    """Return the guard that a fencing token is.

    Raises:
        ChannelUnavailableError: Somebody else has fenced the stream.
    """
    try:
        return Guard.parse(token)
    except ValueError as exc:
        raise ChannelUnavailableError from exc


def token_of(guard: Guard) -> str:
    """Return the fencing token of *guard*; a stream that was never fenced has the empty one."""
    return str(guard) if guard != Guard.parse("") else ""
