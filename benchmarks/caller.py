"""An HTTP/1.1 client that does next to nothing: it writes prepared bytes and looks for the end of the answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Final

import attrs

IsWhole = Callable[[bytes], bool]

HOST: Final = "127.0.0.1"
_OK: Final = b"HTTP/1.1 200"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@attrs.define(eq=False)
class Caller(asyncio.Protocol):
    """One connection that sends one request after another and notes how long each answer takes.

    Attributes:
        until: No request is sent after this moment of the performance counter, once an answer was counted.
        count_from: Answers to earlier requests are not counted.
        latencies: Seconds each.
        sent: How many requests were answered, counted or not.
        ended_at: When the last answer was there.
        done: Set when there is nothing more to send, or with what went wrong.
    """

    _requests: Iterator[bytes]
    _is_whole: IsWhole
    until: float = float("inf")
    count_from: float = 0.0
    latencies: list[float] = attrs.field(init=False, factory=list)
    sent: int = attrs.field(init=False, default=0)
    ended_at: float = attrs.field(init=False, default=0.0)
    done: asyncio.Future[None] = attrs.field(init=False, factory=lambda: asyncio.get_running_loop().create_future())
    _transport: asyncio.Transport | None = attrs.field(init=False, default=None)
    _received: bytes = attrs.field(init=False, default=b"")
    _sent_at: float = attrs.field(init=False, default=0.0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self) -> None:
        """Send the next request, if there is one and time for it."""
        now = perf_counter()
        request = next(self._requests, None) if now < self.until or not self.latencies else None
        if request is None:
            self._finish()
            return
        assert self._transport is not None
        self._sent_at = now
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        self._received += data
        if not self._is_whole(self._received):
            return
        answer, self._received = self._received, b""
        if not answer.startswith(_OK):
            self._fail(f"unexpected answer: {answer[:500]!r}")
            return
        self.sent += 1
        self.ended_at = now
        if self._sent_at >= self.count_from:
            self.latencies.append(now - self._sent_at)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {exc!r}")

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))


async def connect(port: int, caller: Caller) -> Caller:
    """Give *caller* a connection."""
    await asyncio.get_running_loop().create_connection(lambda: caller, HOST, port)
    return caller


def has_body(received: bytes) -> bool:
    """Tell whether an answer with a ``Content-Length`` is complete."""
    head, mark, body = received.partition(b"\r\n\r\n")
    if not mark:
        return False
    length = _LENGTH.search(head)
    return length is None or len(body) >= int(length[1])


def has_records(received: bytes) -> bool:
    """Tell whether the first frame of records of a stream is there."""
    _, mark, frame = received.partition(b"event: batch\n")
    return (bool(mark) and b"\n\n" in frame) or _is_refusal(received)


def has_ended(received: bytes) -> bool:
    """Tell whether a chunked answer is complete."""
    return received.endswith(b"\r\n0\r\n\r\n") or _is_refusal(received)


def _is_refusal(received: bytes) -> bool:
    return len(received) >= len(_OK) and not received.startswith(_OK) and has_body(received)
