"""What a writer is asked to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from sessions_adapters.s2.failures import FAILURES
from sessions_adapters.s2.records import Entry
from sessions_core.domain.channel import Appended
from sessions_core.domain.guard import Guard, GuardChange
from sessions_core.errors import ChannelUnavailableError, GuardMismatchError, TailMismatchError


@attrs.frozen(eq=False)
class Append:
    """Append *entries*, all or none, under *guard* and, if given, where the next seq is *if_tail*.

    Attributes:
        deadline: When its caller leaves, by the clock of the loop.
    """

    entries: Sequence[Entry]
    guard: Guard
    deadline: float
    answer: asyncio.Future[list[Appended]]
    if_tail: int | None = None

    @property
    def size(self) -> int:
        """Metered bytes."""
        return sum(entry.size for entry in self.entries)


@attrs.frozen(eq=False)
class SetGuard:
    """Compare-and-set the guard.

    Attributes:
        deadline: When its caller leaves, by the clock of the loop.
    """

    new: Guard
    expect: Guard
    if_tail: int | None
    timestamp: int | None
    deadline: float
    answer: asyncio.Future[GuardChange]


Request = Append | SetGuard


def answer(request: Request, result: Any) -> None:
    """Give *request* its answer, if somebody still waits for it."""
    if not request.answer.done():
        request.answer.set_result(result)


def fail(requests: Iterable[Request], error: Exception) -> None:
    """Let those who still wait know that there will be no answer. Each gets an exception of its own to raise."""
    for request in requests:
        if not request.answer.done():
            request.answer.set_exception(_another(error))


def _another(error: Exception) -> Exception:
    another: Exception
    cause: BaseException | None
    if isinstance(error, FAILURES):
        another, cause = ChannelUnavailableError(), error
    elif isinstance(error, (ChannelUnavailableError, GuardMismatchError, TailMismatchError)):
        another, cause = attrs.evolve(error), error.__cause__
    else:
        another, cause = RuntimeError("the writer of a channel has failed"), error
    another.__cause__ = cause
    return another
