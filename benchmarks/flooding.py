"""Somebody who sends bad requests: a process of its own that keeps a pace, so that the ratio tells of the server and not of it.

It is bounded in both ways: so many requests a second, each on a connection of its own that ends with the answer, and so many
connections beside that are opened, sent half a request on, and held.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, Final

import attrs

from benchmarks.bad_requests import HALF_OPEN, in_turns
from benchmarks.caller import HOST

RATE: Final = 200.0
HELD: Final = 100
_PATIENCE_SECONDS: Final = 5.0
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})")
_CLOSED: Final = "closed"


@attrs.frozen(kw_only=True)
class Order:
    """What is to be flooded.

    Attributes:
        token: A public token that works.
    """

    port: int
    token: str
    rate: float = RATE
    held: int = HELD


@attrs.frozen(kw_only=True)
class Flooded:
    """What has become of it.

    Attributes:
        answers: How many of each kind were answered with each status, or closed without one.
        seconds: How long it lasted.
    """

    answers: dict[tuple[str, str], int]
    seconds: float

    @property
    def rate(self) -> float:
        """Bad requests per second that have come to their end."""
        return sum(self.answers.values()) / self.seconds

    @property
    def statuses(self) -> list[str]:
        """Each status that was answered, once."""
        return sorted({status for _, status in self.answers})


class _Shot(asyncio.Protocol):
    """One connection: sends what it has, and notes how the answer begins."""

    def __init__(self, flood: _Flood, kind: str, data: bytes, *, stays: bool = False) -> None:
        self._flood, self._kind, self._data, self._stays = flood, kind, data, stays
        self._status = _CLOSED

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._flood.open.add(self)
        transport.write(self._data)
        if not self._stays:
            asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        found = _STATUS.match(data)
        self._status = found[1].decode() if found else "HTTP/2"
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._flood.open.discard(self)
        self._flood.answers[self._kind, self._status] += 1

    def abort(self) -> None:
        self._transport.abort()


@attrs.define(eq=False)
class _Flood:
    """A flood under way."""

    order: Order
    answers: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    open: set[_Shot] = attrs.field(factory=set)

    async def run(self) -> None:
        """Send until cancelled, at the pace that was ordered."""
        requests = in_turns(self.order.token)
        started, pause = perf_counter(), 1 / self.order.rate
        for _ in range(self.order.held):
            await self._send("half-open", HALF_OPEN, stays=True)
        for number, (kind, data) in enumerate(requests):
            await self._send(kind, data)
            await asyncio.sleep(max(0.0, started + number * pause - perf_counter()))

    def leave(self) -> None:
        """Cut what is open."""
        for shot in list(self.open):
            shot.abort()

    async def _send(self, kind: str, data: bytes, *, stays: bool = False) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Shot(self, kind, data, stays=stays), HOST, self.order.port)
        except OSError:
            self.answers[kind, "refused"] += 1


def flood(pipe: Connection[Any, Any]) -> None:
    """Carry out what comes over *pipe*: an order begins a flood, the next thing ends it and is answered with what has become of it."""
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        pipe.send(asyncio.run(_flood_until(order, pipe)))


async def _flood_until(order: Order, pipe: Connection[Any, Any]) -> Flooded:
    flood, started = _Flood(order), perf_counter()
    running = asyncio.create_task(flood.run())
    await asyncio.to_thread(pipe.recv)
    running.cancel()
    await asyncio.wait([running])
    answers, seconds = dict(flood.answers), perf_counter() - started
    flood.leave()
    return Flooded(answers=answers, seconds=seconds)
