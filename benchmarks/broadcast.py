"""A job of the load client: many readers of one channel, and a writer that keeps a pace."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from time import perf_counter, process_time
from typing import Final

import attrs

from benchmarks import counters, usage
from benchmarks.caller import HOST
from benchmarks.load import Writer
from benchmarks.readers import Delivery, Reader, deliveries, events, remembering, subscribe
from benchmarks.samples import Samples
from harness.chain import broken_links

PATIENCE_SECONDS: Final = 20
_OK: Final = b"HTTP/1.1 200"
_PAUSE_SECONDS: Final = 0.005


@attrs.frozen(kw_only=True)
class Delivered:
    """What has reached the readers.

    Attributes:
        samples: Latencies from sending an append until a reader has its record.
        cpu: The server's share of a processor while it was measured.
        records: How many records each reader ought to have.
        problems: What any reader has not got once, in order, and unchanged.
        gone_seconds: How long the server took to notice that all readers had left; None if it was not asked.
    """

    samples: Samples
    cpu: float
    records: int
    problems: list[str]
    gone_seconds: float | None


@attrs.frozen(kw_only=True)
class Broadcast:
    """Readers that are there before the first record, and leave without a word after the last.

    Attributes:
        port: Where the readers are.
        writer_port: Where the writer is.
        pid: The process whose processor time is counted.
        subscription: Each reader's request.
        rate: Appends per second. The writer does not wait for answers, so a slow server cannot slow it.
        counts_streams: Whether the server can be asked for its number of streams.
    """

    port: int
    writer_port: int
    pid: int
    writer: Writer
    subscription: bytes
    readers: int
    rate: float
    warm_up_seconds: float
    seconds: float
    counts_streams: bool

    def run(self) -> Delivered:
        """Write, read, leave, and look at what was read."""
        return asyncio.run(self._run())

    async def _run(self) -> Delivered:
        warm, count = round(self.rate * self.warm_up_seconds), round(self.rate * self.seconds)
        script = self.writer.requests(warm + count)
        crew = await subscribe(self.port, [self.subscription] * self.readers, PATIENCE_SECONDS)
        pacer = Pacer(self.rate)
        await asyncio.get_running_loop().create_connection(lambda: pacer, HOST, self.writer_port)
        ends = [reader.until(f'id\\":\\"{self.writer.part_id(warm + count - 1)}\\"'.encode()) for reader in crew]
        await pacer.write(script[:warm])
        started, busy, cpu = perf_counter(), process_time(), usage.cpu_seconds(self.pid)
        await pacer.write(script[warm:])
        await asyncio.wait(ends, timeout=PATIENCE_SECONDS)
        seconds = perf_counter() - started
        busy, cpu = (process_time() - busy) / seconds, (usage.cpu_seconds(self.pid) - cpu) / seconds
        await pacer.settle(warm + count)
        gone = await self._leave(crew)
        inspection = inspect(crew, warm + count)
        return Delivered(
            samples=Samples(
                latencies=[at - pacer.sent_at[seq] for seq, at in inspection.arrivals if warm <= seq < warm + count],
                seconds=seconds,
                sent=[warm + count],
                busy=busy,
            ),
            cpu=cpu,
            records=warm + count,
            problems=inspection.problems,
            gone_seconds=gone,
        )

    async def _leave(self, crew: Sequence[Reader]) -> float | None:
        for reader in crew:
            reader.leave()
        started = perf_counter()
        await asyncio.sleep(0)  # the connections are cut in the loop's next turn
        if not self.counts_streams:
            return None
        await asyncio.to_thread(counters.await_value, self.port, counters.SUBSCRIPTIONS, 0, PATIENCE_SECONDS)
        return perf_counter() - started


class Pacer(asyncio.Protocol):
    """Sends requests at a fixed rate over one connection, whether the last one is answered or not.

    Attributes:
        sent_at: When each request was sent, by the performance counter.
    """

    def __init__(self, rate: float) -> None:
        self.sent_at: list[float] = []
        self._pause = 1 / rate
        self._transport: asyncio.Transport | None = None
        self._answers = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._answers += data

    async def write(self, script: Sequence[bytes]) -> None:
        """Send the requests; return one pause after the last."""
        assert self._transport is not None
        started = perf_counter()
        for number, request in enumerate(script, 1):
            self.sent_at.append(perf_counter())
            self._transport.write(request)
            await asyncio.sleep(max(0.0, started + number * self._pause - perf_counter()))

    async def settle(self, count: int) -> None:
        """Wait for the last answers, which readers may be faster than, and leave.

        Raises:
            RuntimeError: Not each of *count* appends was acknowledged.
        """
        assert self._transport is not None
        deadline = perf_counter() + PATIENCE_SECONDS
        while self._answers.count(_OK) != count:
            if perf_counter() > deadline:
                acknowledged = self._answers.count(_OK)
                raise RuntimeError(f"{count} appends, {acknowledged} acknowledged: {self._answers[-500:]!r}")
            await asyncio.sleep(_PAUSE_SECONDS)
        self._transport.abort()


@attrs.frozen
class Inspection:
    """What some readers have got.

    Attributes:
        arrivals: Seqs, and when each came to one of the readers.
        problems: What is wrong.
    """

    arrivals: list[tuple[int, float]] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)


def inspect(crew: Sequence[Reader], count: int) -> Inspection:
    """Look at every record that every reader has got, of *count* that were written."""
    found = Inspection()
    versions: Counter[tuple[Delivery, ...]] = Counter()
    recall = remembering(deliveries)
    for reader in crew:
        got: list[Delivery] = []
        for came_at, event in events(reader.pieces):
            batch = recall(event)
            got += batch
            found.arrivals.extend((seq, came_at) for seq, _ in batch)
        versions[tuple(got)] += 1
    for version, readers in versions.items():
        found.problems.extend(f"{readers} readers: {what}" for what in _wrong(version, count))
    return found


def _wrong(got: Sequence[Delivery], count: int) -> Iterator[str]:
    if [seq for seq, _ in got] != list(range(count)):
        yield f"{count} written, {len(got)} read, or not in order"
    yield from broken_links(text for _, text in got)
