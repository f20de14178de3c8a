"""Connections that have to go for want of room: each is told so, and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

import attrs

from sessions_server.connections.places import Leaving, cut

LINGER_SECONDS: Final = 1.0
"""So long what still comes is taken, and dropped, after the last words: what is unread when a socket closes takes them along."""


@attrs.define(eq=False)
class Farewell(asyncio.Protocol):
    """Says a few words and closes, but hears on for a moment: what is unread when a socket closes takes the last words with it.

    ``leaving`` is where it is found until it has closed, and ``below`` what carries it, if that is not its own transport.
    """

    _words: Callable[[], bytes]
    _leaving: Leaving
    _below: asyncio.Transport | None = None
    _wire: asyncio.Transport = attrs.field(init=False)
    _timer: asyncio.TimerHandle = attrs.field(init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = self._wire = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._leaving.add(self)
        self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.abort)
        wire.write(self._words())
        if wire.can_write_eof():
            with suppress(OSError):  # the client has broken off, which nobody has noticed yet
                wire.write_eof()
        else:
            wire.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why makes no difference
        self._leaving.discard(self)
        self._timer.cancel()

    def abort(self) -> None:
        """Close at once."""
        cut(self._wire, self._below)
