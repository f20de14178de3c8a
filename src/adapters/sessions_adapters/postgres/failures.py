"""The driver's exceptions, and what callers get instead."""

from __future__ import annotations

from types import TracebackType
from typing import Final

import asyncpg
import attrs

from sessions_core.errors import ChannelUnavailableError, StoreUnavailableError

FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""Whatever the driver may raise."""
UNKNOWN: Final = "no answer came: it is not known whether the statement took effect"
UNDONE: Final = "the statement took no effect"
_LOST: Final = ("08", "57P", "58", "XX")
"""Beginnings of codes that come when a server goes away, perhaps after a commit."""
_ENDED: Final = ("08", "57P01", "57P02")
"""Those of a connection that has come to its end."""
_VALUES: Final = ("22", "23", "54")
"""Those that come because of what is in a statement: a wrong value, a broken constraint, more than there may be."""


Failure = type[StoreUnavailableError] | type[ChannelUnavailableError]
"""Which of our errors a caller is to get."""


@attrs.frozen
class _Translation:
    """A block whose driver's errors become others. No generator: one is made with every append."""

    _failure: Failure
    _is_sent: bool

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, exc: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(exc, FAILURES):
            raise _translation_of(exc, self._failure, is_sent=self._is_sent) from exc


def translated(failure: Failure) -> _Translation:
    """Raise *failure* instead of the driver's errors, with a note that says whether the statement may have taken effect."""
    return _Translation(failure, True)


def translated_before(failure: Failure) -> _Translation:
    """Raise *failure* instead of the driver's errors where no statement has been sent yet."""
    return _Translation(failure, False)


def for_each_caller(error: BaseException) -> BaseException:
    """Return what one of several callers of the log gets who share the failure *error*: an exception that nobody else raises."""
    if isinstance(error, FAILURES):
        own = _translation_of(error, ChannelUnavailableError, is_sent=True)
        own.__cause__ = error
    elif isinstance(error, ChannelUnavailableError):
        own = ChannelUnavailableError()
        own.__notes__ = list(error.__notes__)
        own.__cause__ = error.__cause__
    else:
        return error  # a mistake of ours: nobody catches it
    return own


def _translation_of(error: BaseException, failure: Failure, *, is_sent: bool) -> Exception:
    translation = failure()
    translation.add_note(UNKNOWN if is_sent and not is_undone(error) else UNDONE)
    return translation


def is_undone(error: BaseException) -> bool:
    """Tell whether the statement surely had no effect: the server said that it failed, or it was never sent."""
    if isinstance(error, asyncpg.PostgresError):
        return not (error.sqlstate or "08").startswith(_LOST)
    return is_unsent(error) or isinstance(error, ValueError)  # the latter: the driver could not write a value down


def is_about_values(error: BaseException) -> bool:
    """Tell whether what was in the statement made it fail, without any effect: without that it may well succeed."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_VALUES)
    return isinstance(error, ValueError)  # the driver could not write a value down


def is_unsent(error: BaseException | None) -> bool:
    """Tell whether the driver refused to send the statement because the connection had just been lost."""
    return type(error) in (asyncpg.InterfaceError, asyncpg.InternalClientError)


def is_lost(error: BaseException | None) -> bool:
    """Tell whether the connection was lost: on another one the statement may well succeed."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_ENDED)
    return is_unsent(error)
