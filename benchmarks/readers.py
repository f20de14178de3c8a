"""Readers of SSE streams that keep what comes, with the time it came, and look into it when time does not matter."""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from time import perf_counter
from typing import Final

from benchmarks.caller import HOST

Piece = tuple[float, bytes]
Delivery = tuple[int, str]
"""The seq and the text of a record."""

PING: Final = b"event: ping"
BATCH: Final = b"event: batch"
_OVERLAP: Final = 100
"""A mark that begins in one piece and ends in the next is found if it is not longer."""


class Reader(asyncio.Protocol):
    """One connection with one subscription.

    Attributes:
        pieces: What came, and when by the performance counter.
    """

    def __init__(self, request: bytes) -> None:
        self.pieces: list[Piece] = []
        self._request = request
        self._mark: bytes | None = None
        self._seen: asyncio.Future[float] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        self.pieces.append((now, data))
        if (self._mark is not None and self._mark in data) or (
            self._mark is not None and len(self.pieces) > 1 and self._mark in self._seam(data)
        ):
            self._see(now)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._seen is not None and not self._seen.done():
            self._seen.set_exception(ConnectionError(f"the stream was lost: {exc!r}"))

    def until(self, mark: bytes) -> asyncio.Future[float]:
        """Return a future of when *mark* has come; what came before does not count."""
        self._mark, self._seen = mark, asyncio.get_running_loop().create_future()
        return self._seen

    def leave(self) -> None:
        """Cut the connection, without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _seam(self, data: bytes) -> bytes:
        return self.pieces[-2][1][-_OVERLAP:] + data[:_OVERLAP]

    def _see(self, now: float) -> None:
        assert self._seen is not None
        self._mark = None
        if not self._seen.done():
            self._seen.set_result(now)


async def subscribe(port: int, requests: Iterable[bytes], patience: float) -> list[Reader]:
    """Open a stream for each request; return when all have been told the tail."""
    loop = asyncio.get_running_loop()
    crew, told = list[Reader](), list[asyncio.Future[float]]()
    for request in requests:
        reader = Reader(request)
        told.append(reader.until(PING))
        crew.append(reader)
        await loop.create_connection(lambda reader=reader: reader, HOST, port)  # type: ignore[misc]
    async with asyncio.timeout(patience):
        await asyncio.gather(*told)
    return crew


def events(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the whole events of a chunked answer, each with the time at which its end was there."""
    rest = b""
    for came_at, chunk in _chunks(pieces):
        *whole, rest = (rest + chunk).split(b"\n\n")
        for event in whole:
            yield came_at, event


def deliveries(event: bytes) -> tuple[Delivery, ...]:
    """Return the records of a batch event; none for others."""
    fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
    if fields.get(b"event") != b"batch":
        return ()
    found = json.loads(fields[b"data"])["records"]
    return tuple((record["seq_num"], json.loads(record["body"])["data"]) for record in found)


def remembering(read: Callable[[bytes], tuple[Delivery, ...]]) -> Callable[[bytes], tuple[Delivery, ...]]:
    """Return *read* with a memory: readers of one channel get the same events."""
    known: dict[bytes, tuple[Delivery, ...]] = {}

    def recall(event: bytes) -> tuple[Delivery, ...]:
        if event not in known:
            known[event] = read(event)
        return known[event]

    return recall


def _chunks(pieces: Sequence[Piece]) -> Iterator[Piece]:
    whole = b"".join(data for _, data in pieces)
    ends = list(accumulate(len(data) for _, data in pieces))
    at = whole.index(b"\r\n\r\n") + 4
    while (line_end := whole.find(b"\r\n", at)) >= 0:
        start = line_end + 2
        end = start + int(whole[at:line_end], 16)
        if end > len(whole):
            return
        yield pieces[bisect_left(ends, end)][0], whole[start:end]
        at = end + 2
