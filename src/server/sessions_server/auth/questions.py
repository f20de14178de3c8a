"""Questions that many have at once: one of them asks, the others wait, and what cannot be told to one is told to nobody."""

from __future__ import annotations

import asyncio
from types import TracebackType
from weakref import WeakValueDictionary

import attrs

from sessions_core.errors import UnavailableError


@attrs.define(eq=False)
class Question:
    """Lets one at a time ask. Whoever comes in looks first whether the one before has left an answer.

    Whoever is cancelled while asking leaves the question to the next. Whoever gets no answer has asked for all who waited: they are
    told so at once, instead of waiting for another silence each.
    """

    _turn: asyncio.Lock = attrs.field(init=False, factory=asyncio.Lock)
    _failure: UnavailableError | None = attrs.field(init=False, default=None)

    async def __aenter__(self) -> None:
        """Wait for one's turn.

        Raises:
            UnavailableError: There was no answer for somebody who asked meanwhile.
        """
        known = self._failure
        await self._turn.acquire()
        failure = self._failure
        if failure is not None and failure is not known:
            self._turn.release()
            raise type(failure)(failure.system)

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if isinstance(error, UnavailableError):
            self._failure = error
        self._turn.release()


@attrs.define
class Questions:
    """Knows which questions are being asked."""

    _asked: WeakValueDictionary[str, Question] = attrs.field(init=False, factory=WeakValueDictionary)

    def __len__(self) -> int:
        return len(self._asked)

    def about(self, subject: str) -> Question:
        """Return the one question about *subject*; it is forgotten when nobody asks it any more."""
        return self._asked.setdefault(subject, Question())
