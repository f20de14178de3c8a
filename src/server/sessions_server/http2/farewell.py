"""Connections that are one too many: each is told so, and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import attrs
from h2.errors import ErrorCodes

from sessions_server.http2.frames import EMPTY_SETTINGS, goaway

MOST: Final = 100
"""So many are told at a time; more are closed without a word."""
_LINGER_SECONDS: Final = 1.0
HTTP2_WORDS: Final = EMPTY_SETTINGS + goaway(0, ErrorCodes.ENHANCE_YOUR_CALM, "too many connections")


@attrs.define(eq=False)
class Farewell(asyncio.Protocol):
    """Says a few words and closes, but hears on for a moment: what is unread when a socket closes takes the last words with it.

    ``peers`` is where it is found until it has closed.

    Attributes:
        abort: Closes at once.
    """

    _words: Callable[[], bytes]
    _peers: set[Farewell]
    abort: Callable[[], None] = attrs.field(init=False)
    _timer: asyncio.TimerHandle | None = attrs.field(init=False, default=None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        if len(self._peers) >= MOST:
            wire.abort()
            return
        self._peers.add(self)
        self.abort = wire.abort
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, wire.abort)
        wire.write(self._words())
        if wire.can_write_eof():
            wire.write_eof()
        else:
            wire.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why makes no difference
        self._peers.discard(self)
        if self._timer is not None:
            self._timer.cancel()
