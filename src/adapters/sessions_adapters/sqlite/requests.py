"""What callers hand to the threads that work on the database, and how it comes back to them.

A request is made on the event loop, decided on a thread, and settled on the loop again: one wake-up of the loop settles
everything that was decided together. A caller that has been cancelled meanwhile is simply not told.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import attrs

from sessions_core.domain.channel import Appended, Channel, NewRecord
from sessions_core.domain.guard import Guard

T = TypeVar("T")


def closed_error() -> sqlite3.Error:
    """Return what a request gets that comes after the end."""
    return sqlite3.ProgrammingError("the database is closed")


@attrs.define(eq=False)
class Work(Generic[T]):
    """Anything that is done with a connection.

    Attributes:
        run: Called on a thread, perhaps again if the transaction had to be repeated.
        future: Who waits for the answer, if anybody does.
        after: Called on the loop with the answer, once that is durable, whatever has become of the caller.
    """

    run: Callable[[sqlite3.Connection], T]
    future: asyncio.Future[T] | None = None
    after: Callable[[T], None] | None = None
    answer: T | None = None
    error: Exception | None = None


@attrs.define(eq=False)
class Append:
    """Records for one channel, and where they went.

    Attributes:
        if_tail: The next seq that the channel must have; None for any.
        timestamp: Arrival of the new ones, Unix milliseconds.
    """

    channel: Channel
    records: tuple[NewRecord, ...]
    guard: Guard
    future: asyncio.Future[list[Appended]] | None = None
    if_tail: int | None = None
    timestamp: int = 0
    answer: list[Appended] | None = None
    error: Exception | None = None


Request = Work[Any] | Append


def settle(requests: Iterable[Request]) -> None:
    """Tell the callers. Runs on the loop."""
    for request in requests:
        future = request.future
        if future is None or future.done():
            continue
        if request.error is None:
            future.set_result(request.answer)  # type: ignore[arg-type]
        else:
            future.set_exception(request.error)


def fail(requests: Iterable[Request], error: Exception) -> None:
    """Let *requests* end with *error*."""
    for request in requests:
        request.error = error


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Let *loop* call *callback* soon. A loop that is gone has nobody left to tell."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
