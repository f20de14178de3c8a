"""Jobs of the load client: many appends at once, and requests one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from time import perf_counter, process_time
from typing import Final

import attrs

from benchmarks import requests
from benchmarks.caller import Caller, IsWhole, connect, has_body
from benchmarks.samples import Samples
from harness.chain import Chain

BODY_BYTES: Final = 200
_EMPTY_LINK: Final = '{"writer": "", "number": 1000, "before": "0123456789abcdef", "payload": ""}'
_PATIENCE_SECONDS: Final = 30


@attrs.frozen(kw_only=True)
class Writer:
    """Somebody who appends to a channel of a session.

    Attributes:
        name: Unique among all writers to this channel; the name of its hash chain.
    """

    name: str
    session: str
    token: str
    io: str = requests.IN

    def requests(self, count: int) -> list[bytes]:
        """Return the first *count* appends of this writer, each with a fresh part id."""
        chain = Chain(self.name)
        payload = "x" * (BODY_BYTES - len(_EMPTY_LINK) - len(self.name))
        return [
            requests.append(self.session, self.token, chain.link(payload), self.part_id(number), self.io)
            for number in range(count)
        ]

    def part_id(self, number: int) -> str:
        """Return the part id of this writer's *number*-th append."""
        return f"{self.name}-{number}"


@attrs.frozen(kw_only=True)
class AppendLoad:
    """Writers that write at the same time, each on a connection of its own.

    Attributes:
        most: How many appends all of them send at most.
    """

    port: int
    writers: tuple[Writer, ...]
    most: int
    warm_up_seconds: float
    seconds: float

    def run(self) -> Samples:
        """Write, and time the appends."""
        each = self.most // len(self.writers)
        scripts = [writer.requests(each) for writer in self.writers]
        return asyncio.run(self._write(scripts))

    async def _write(self, scripts: Sequence[Sequence[bytes]]) -> Samples:
        crew = [await connect(self.port, Caller(iter(script), has_body)) for script in scripts]
        started, busy = perf_counter(), process_time()
        for caller in crew:
            caller.count_from = started + self.warm_up_seconds
            caller.until = caller.count_from + self.seconds
            caller.send()
        await _all_done(crew)
        return _collect(crew, started + self.warm_up_seconds, (process_time() - busy) / (perf_counter() - started))


@attrs.frozen
class Exchanges:
    """Requests that are sent one by one.

    Attributes:
        is_whole: When the answer is taken to be there.
        reconnect: Whether each gets a connection of its own, which is not timed.
    """

    port: int
    requests: tuple[bytes, ...]
    is_whole: IsWhole
    reconnect: bool = False

    def run(self) -> Samples:
        """Send them, and time the answers."""
        return asyncio.run(self._send())

    async def _send(self) -> Samples:
        started, busy = perf_counter(), process_time()
        crew = [await self._call(iter(group)) for group in self._groups()]
        return _collect(crew, started, (process_time() - busy) / (perf_counter() - started))

    def _groups(self) -> Iterator[Sequence[bytes]]:
        return ([request] for request in self.requests) if self.reconnect else iter([self.requests])

    async def _call(self, group: Iterator[bytes]) -> Caller:
        caller = await connect(self.port, Caller(group, self.is_whole))
        caller.send()
        await _all_done([caller])
        return caller


async def _all_done(crew: Sequence[Caller]) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await asyncio.gather(*(caller.done for caller in crew))
    finally:
        for caller in crew:
            caller.close()


def _collect(crew: Sequence[Caller], counted_from: float, busy: float) -> Samples:
    return Samples(
        latencies=[seconds for caller in crew for seconds in caller.latencies],
        seconds=max(caller.ended_at for caller in crew) - counted_from,
        sent=[caller.sent for caller in crew],
        busy=busy,
    )
