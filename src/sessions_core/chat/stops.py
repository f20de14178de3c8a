"""The stops that clients send: each ends the turn that is running when it is heard."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import attrs

from sessions_core.chat.inputs import STOP, Input
from sessions_core.inbox import Message


@attrs.define(eq=False)
class Stops:
    """Hears every stop that comes, however much waits before it, and keeps it for the turn that it ends."""

    _heard: list[int] = attrs.field(init=False, factory=list)
    _stop: Callable[[int], None] | None = attrs.field(init=False, default=None)

    def hear(self, message: Message) -> None:
        """Take in a message that has come; only stops count."""
        given = Input.parse(message.data)
        if given is None or given.kind != STOP:
            return
        if self._stop is None:
            self._heard.append(message.seq)
        else:
            self._stop(message.seq)

    @contextmanager
    def calling(self, stop: Callable[[int], None], first: int) -> Generator[None]:
        """Call *stop* with the seq of each stop from *first* on that has been heard or will be inside the block.

        All of them mean this turn, also those after the first: none must be left for a turn that follows.
        """
        heard, self._heard, self._stop = self._heard, [], stop
        try:
            for seq in heard:
                if seq >= first:
                    stop(seq)
            yield
        finally:
            self._stop = None
