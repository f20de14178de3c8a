"""Questions that many have at once: one of them asks, and what comes of it holds for all who waited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import attrs

from sessions_core.errors import UnavailableError
from sessions_server.problems import UnauthenticatedError

T = TypeVar("T")
SHARED: Final = (UnavailableError, UnauthenticatedError)
"""What comes of an asking for all who wait, and not for the one who asked."""


@attrs.define(eq=False)
class Question:
    """Lets one at a time ask, who looks first whether the one before has left an answer.

    That there is no answer, or that it is a refusal, is told at once to all who waited, or a flood of them would ask one after
    the other. An asking that has begun goes on when whoever began it is cancelled, or strangers could make others begin anew.
    """

    _turn: asyncio.Lock = attrs.field(init=False, factory=asyncio.Lock)
    _failure: UnavailableError | UnauthenticatedError | None = attrs.field(init=False, default=None)

    async def ask(self, look: Callable[[], Awaitable[T]]) -> T:
        """Return what *look* finds when its turn has come.

        Raises:
            UnavailableError: There was no answer, or none for somebody who asked meanwhile.
            UnauthenticatedError: The answer is a refusal, of this caller or of one who asked the same meanwhile.
        """
        known = self._failure
        await self._turn.acquire()
        asking = asyncio.create_task(self._ask(look, known))
        asking.add_done_callback(_hear)
        try:
            await asyncio.wait((asking,))
            return asking.result()
        finally:
            del asking  # a circle: what it raises leads back to this frame

    async def _ask(self, look: Callable[[], Awaitable[T]], known: Exception | None) -> T:
        try:
            failure = self._failure
            if failure is not None and failure is not known:
                raise attrs.evolve(failure)
            return await look()
        except SHARED as error:
            if self._failure is known:
                self._failure = attrs.evolve(error)  # without its traceback, which leads back to here
            raise
        finally:
            self._turn.release()


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
