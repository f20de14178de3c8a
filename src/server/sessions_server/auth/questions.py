"""Questions that many have at once: one of them is asked, all hear the answer, and what cannot be told to one is told to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakValueDictionary

import attrs

from sessions_core.errors import UnavailableError

T = TypeVar("T")


@attrs.define(eq=False)
class Question:
    """Lets one at a time ask, who looks first whether the one before has left an answer.

    An asking goes on when whoever began it is cancelled, or strangers could make others begin from the beginning. Whoever gets no
    answer has asked for all who waited: they are told so at once, instead of waiting for another silence each.
    """

    _turn: asyncio.Lock = attrs.field(init=False, factory=asyncio.Lock)
    _failure: UnavailableError | None = attrs.field(init=False, default=None)

    async def ask(self, look: Callable[[], Awaitable[T]]) -> T:
        """Return what *look* finds when its turn has come.

        Raises:
            UnavailableError: There was no answer, or none for somebody who asked meanwhile.
        """
        asking = asyncio.create_task(self._ask(look, self._failure))
        asking.add_done_callback(_hear)
        try:
            return await asyncio.shield(asking)
        finally:
            del asking  # a circle: what it raises leads back to this frame

    async def _ask(self, look: Callable[[], Awaitable[T]], known: UnavailableError | None) -> T:
        async with self._turn:
            failure = self._failure
            if failure is not None and failure is not known:
                raise _again(failure)
            try:
                return await look()
            except UnavailableError as error:
                self._failure = _again(error)
                raise


def _again(failure: UnavailableError) -> UnavailableError:
    """Return the same failure without its traceback, which leads back to who remembers it."""
    return type(failure)(failure.system)


def _hear(asking: asyncio.Task[T]) -> None:
    """Take notice of a failure that nobody may be there to be told of."""
    if not asking.cancelled():
        asking.exception()


@attrs.define
class Questions:
    """Knows which questions are being asked."""

    _asked: WeakValueDictionary[str, Question] = attrs.field(init=False, factory=WeakValueDictionary)

    def __len__(self) -> int:
        return len(self._asked)

    def about(self, subject: str) -> Question:
        """Return the one question about *subject*; it is forgotten when nobody asks it any more."""
        return self._asked.setdefault(subject, Question())
