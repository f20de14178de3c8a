"""What the official Node client makes of direct writes: records per second beside s2-lite, and one ack beside a brokered append."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks.bench import Bench
from benchmarks.figures import Aim, Comparison, Figure, Series, p50_ratios, ratios
from benchmarks.requests import OUT
from benchmarks.samples import Samples
from benchmarks.section import Checked, Row
from benchmarks.tables import number
from benchmarks.targets import SERVER, in_turn
from harness.node import CLIENTS, NODE
from harness.s2 import S2Server, find_binary, new_basin
from harness.server import KEY, ServerProcess
from harness.services import CannotStartError

SCRIPT: Final = Path(__file__).with_suffix(".mjs")
S2_LITE: Final = "s2-lite in memory"
ACK: Final = "one ack"
BROKERED: Final = "one brokered append"
JOBS: Final = {BROKERED: "brokered", ACK: "acks"}
"""What streaming.mjs calls the writing of single records."""
RATE_AIM: Final = 0.5
ACK_AIM: Final = 2.0


@attrs.define
class Streaming:
    """What was found: records per second by target, a value for each round, and the times of single appends.

    Attributes:
        why_not: Why nothing was measured.
    """

    rates: dict[str, list[float]] = attrs.field(factory=lambda: {S2_LITE: [], SERVER: []})
    series: dict[str, Series] = attrs.field(factory=lambda: {BROKERED: Series(), ACK: Series()})
    checked: Checked = attrs.field(factory=Checked)
    why_not: str | None = None

    head = ("direct writes from Node", "records/s", "p50 ms", "p99 ms")

    @property
    def rows(self) -> list[Row]:
        """One for each target."""
        if self.why_not is not None:
            return [(f"not measured: {self.why_not}", "", "", "")]
        rates = ((target, number(statistics.median(values)), "", "") for target, values in self.rates.items())
        times = ((what, "", f"{one.p50:.3f}", f"{one.p99:.3f}") for what, one in self.series.items())
        return [*rates, *times]

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        if self.why_not is not None:
            return []
        rates = ratios(self.rates[SERVER], self.rates[S2_LITE])
        acks = p50_ratios(self.series[ACK], self.series[BROKERED])
        return [
            Figure(name="records/s of one Node writer / s2-lite", values=rates, aim=RATE_AIM, side=Aim.AT_LEAST),
            Figure(name="ack of one record / brokered append: p50", values=acks, aim=ACK_AIM),
        ]

    @property
    def comparisons(self) -> list[Comparison]:
        """Both."""
        if self.why_not is not None:
            return []
        rates = {target: statistics.median(values) for target, values in self.rates.items()}
        p50 = {what: series.p50 for what, series in self.series.items()}
        return [
            Comparison(
                name="one Node writer", unit="records/s", values=rates, yardsticks=1, limit=rates[S2_LITE] * RATE_AIM
            ),
            Comparison(
                name="one record from Node: p50", unit="ms", values=p50, yardsticks=1, limit=p50[BROKERED] * ACK_AIM
            ),
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        rates = [{"target": target, "recordsPerSecond": values} for target, values in self.rates.items()]
        return rates + [{"target": what, **series.as_json()} for what, series in self.series.items() if series.rounds]


@attrs.frozen
class _Node:
    """The client: a Node process at the end of two pipes."""

    _process: subprocess.Popen[str]

    def do(self, what: str, url: str, session: str, count: int) -> list[float]:
        """Have *count* records written to *session*; return the seconds of its parts.

        Raises:
            RuntimeError: It went wrong; Node has said how.
        """
        job = {"what": what, "url": url, "key": KEY, "session": session, "count": count}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"Node could not {what}")
        times: list[float] = json.loads(line)
        return times


def measure(bench: Bench) -> Streaming:
    """Write with the official client, in turns to the server and to an s2-lite that keeps everything in memory.

    Where the client or s2-lite is not there, nothing is measured: everything else of the bench does without them.
    """
    try:
        NODE.get()
        find_binary()
    except CannotStartError as error:
        print(f"direct writes are not measured: {error}", file=sys.stderr)
        return Streaming(why_not=str(error))
    stage, rounds = bench.stage, range(bench.scale.stream_rounds + 1)
    stage.start()
    stage.create([_session(what, number) for what in ("stream", *JOBS.values()) for number in rounds])
    try:
        with _s2_lite(bench.folder / "streaming") as lender, _node() as node:
            measuring = _Measuring(bench, node, {SERVER: f"http://127.0.0.1:{stage.port}", S2_LITE: lender.address})
            bench.progress.expect(len(rounds))
            for number in rounds:
                bench.progress.step(f"streaming: round {number} of {rounds[-1]}")
                measuring.measure_round(number)
        measuring.found.checked = asyncio.run(_read_back(bench, measuring.written))
    finally:
        stage.stop()
    return measuring.found


@attrs.define
class _Measuring:
    """Does the rounds; the first one, which warms everything up, does not count.

    Attributes:
        written: Records by session of the server.
    """

    bench: Bench
    node: _Node
    urls: Mapping[str, str]
    found: Streaming = attrs.field(init=False, factory=Streaming)
    written: dict[str, int] = attrs.field(init=False, factory=dict)

    def measure_round(self, number: int) -> None:
        for target in in_turn(list(self.urls), number):
            self._stream(target, number)
        for what in in_turn(list(JOBS), number):
            self._append_singly(what, number)

    def _stream(self, target: str, number: int) -> None:
        session, count = _session("stream", number), self.bench.scale.stream_records
        (seconds,) = self.node.do("stream", self.urls[target], session, count)
        self.written[session] = count
        if number:
            self.found.rates[target].append(count / seconds)

    def _append_singly(self, what: str, number: int) -> None:
        session, count = _session(JOBS[what], number), self.bench.scale.stream_acks
        times = self.node.do(JOBS[what], self.urls[SERVER], session, count)
        self.written[session] = count
        if number:
            samples = Samples(latencies=times, seconds=sum(times), sent=(count,), busy=math.nan)
            self.found.series[what].rounds.append(samples)


async def _read_back(bench: Bench, written: Mapping[str, int]) -> Checked:
    total, problems = 0, list[str]()
    async with bench.stage.client() as client:
        for session, count in written.items():
            seqs = [record["seqNum"] for record in await client.records(session, OUT)]
            total += len(seqs)
            if seqs != list(range(count)):
                problems.append(f"{session}: {count} acknowledged, {len(seqs)} stored, or in another order")
    return Checked(total, problems)


def _session(what: str, number: int) -> str:
    return f"{what}-{number}"


@contextmanager
def _node() -> Iterator[_Node]:
    """Start the client."""
    command = [NODE.get(), str(SCRIPT), str(CLIENTS)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield _Node(process)
        finally:
            process.kill()


@contextmanager
def _s2_lite(folder: Path) -> Iterator[ServerProcess]:
    """Start an s2-lite, and the server that gives clients its address; what they write does not pass through that."""
    folder.mkdir()
    with S2Server(folder) as s2:
        channels = {"SESSIONS_S2_URL": f"s2://{new_basin()}?endpoint={s2.endpoint}"}
        with ServerProcess(folder / "data", environment=channels) as lender:
            yield lender
