"""What it costs to bring each record to many readers, beside the least that any server has to do for it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks import requests
from benchmarks.bench import Bench
from benchmarks.broadcast import Broadcast, Delivered
from benchmarks.broadcaster import serve_broadcast, serve_synced_broadcast
from benchmarks.figures import Comparison, Figure, Series, p50_ratios, ratios
from benchmarks.load import Writer
from benchmarks.processes import spawned
from benchmarks.section import Checked, Row
from benchmarks.targets import BARE, SERVER, SYNCED, in_turn
from benchmarks.yardsticks import Address
from harness.server import KEY

TARGETS: Final = (BARE, SYNCED, SERVER)
READERS: Final = (1, 50, 200)
RATE: Final = 100.0
P50_AIM: Final = 2.0
CPU_AIM: Final = 2.5
GONE_AIM: Final = 1.0

Place = tuple[str, int]
"""A target and a number of readers."""


@attrs.frozen
class FanOut:
    """What was found, by target and number of readers, in each round."""

    rounds: dict[Place, list[Delivered]] = attrs.field(factory=dict)

    head = ("fan-out", "readers", "p50 ms", "p99 ms", "server CPU", "client busy", "gone after s")

    @property
    def rows(self) -> list[Row]:
        """One for each target and number of readers."""
        return [_row((target, readers), self.rounds[target, readers]) for readers in READERS for target in TARGETS]

    @property
    def figures(self) -> list[Figure]:
        """What matters: at the largest number of readers."""
        most = READERS[-1]
        server, synced, bare = (self._series(target, most) for target in (SERVER, SYNCED, BARE))
        name = f"fan-out to {most}"
        cpu = ratios(self._cpu(SERVER, most), self._cpu(BARE, most))
        gone = [found.gone_seconds or 0.0 for found in self.rounds[SERVER, most]]
        return [
            Figure(name=f"{name}: p50 / {BARE}", values=p50_ratios(server, bare), aim=P50_AIM),
            Figure(name=f"{name}: p50 / {SYNCED}", values=p50_ratios(server, synced), aim=P50_AIM),
            Figure(name=f"{name}: server CPU / {BARE}", values=cpu, aim=CPU_AIM),
            Figure(name=f"{name}: departed readers are gone", values=gone, aim=GONE_AIM, unit="s"),
        ]

    @property
    def comparisons(self) -> list[Comparison]:
        """Latency and processor time for each number of readers."""
        return [comparison for readers in READERS for comparison in self._compare(readers)]

    @property
    def checked(self) -> Checked:
        """What became of every record on its way to every reader."""
        records, problems = 0, list[str]()
        for (target, readers), rounds in self.rounds.items():
            records += sum(found.records * readers for found in rounds)
            problems += [f"fan-out, {target}: {what}" for found in rounds for what in found.problems]
        return Checked(records, problems)

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        return [
            {
                "target": target,
                "readers": readers,
                **self._series(target, readers).as_json(),
                "serverCpu": self._cpu(target, readers),
                "goneSeconds": [found.gone_seconds for found in rounds],
            }
            for (target, readers), rounds in self.rounds.items()
        ]

    def _compare(self, readers: int) -> Iterator[Comparison]:
        p50 = {target: self._series(target, readers).p50 for target in TARGETS}
        cpu = {target: 100 * statistics.median(self._cpu(target, readers)) for target in TARGETS}
        is_most = readers == READERS[-1]
        name = f"fan-out to {readers}"
        yield Comparison(
            name=f"{name}: p50", unit="ms", values=p50, yardsticks=2, limit=P50_AIM * p50[BARE] if is_most else None
        )
        limit = CPU_AIM * cpu[BARE] if is_most else None
        yield Comparison(name=f"{name}: server CPU", unit="% of a processor", values=cpu, yardsticks=2, limit=limit)

    def _series(self, target: str, readers: int) -> Series:
        return Series([found.samples for found in self.rounds[target, readers]])

    def _cpu(self, target: str, readers: int) -> list[float]:
        return [found.cpu for found in self.rounds[target, readers]]


def _row(place: Place, rounds: list[Delivered]) -> Row:
    target, readers = place
    series = Series([found.samples for found in rounds])
    cpu = statistics.median(found.cpu for found in rounds)
    gone = [found.gone_seconds for found in rounds if found.gone_seconds is not None]
    noticed = f"{statistics.median(gone):.3f}" if gone else "-"
    return (target, str(readers), f"{series.p50:.3f}", f"{series.p99:.3f}", f"{cpu:.1%}", f"{series.busy:.0%}", noticed)


def measure(bench: Bench) -> FanOut:
    """Bring records to readers, by all targets in turns. Each measurement has a session of its own."""
    stage, rounds, progress = bench.stage, bench.scale.fan_out_rounds, bench.progress
    progress.expect(rounds * len(READERS) * len(TARGETS))
    found = FanOut()
    stage.start()
    stage.create([_session(readers, number) for readers in READERS for number in range(rounds)])
    with _yardsticks(bench.folder) as addresses:
        addresses[SERVER] = Address(stage.port, stage.pid)
        for number in range(rounds):
            for readers in READERS:
                for target in in_turn(TARGETS, number):
                    progress.step(f"fan-out: round {number + 1} of {rounds}: {target}, readers: {readers}")
                    delivered = bench.client.measure(_job(bench, addresses[target], target, readers, number))
                    found.rounds.setdefault((target, readers), []).append(delivered)
    stage.stop()
    return found


def _job(bench: Bench, address: Address, target: str, readers: int, number: int) -> Broadcast:
    session = _session(readers, number)
    return Broadcast(
        port=address.port,
        writer_port=address.port,
        pid=address.pid,
        writer=Writer(name="fan-out", session=session, token=KEY, io=requests.OUT),
        subscription=requests.subscribe(session, bench.stage.tokens[session]),
        readers=readers,
        rate=RATE,
        warm_up_seconds=bench.scale.fan_out_warm_up_seconds,
        seconds=bench.scale.fan_out_seconds,
        counts_streams=target == SERVER,
    )


def _session(readers: int, number: int) -> str:
    return f"fan-out-{readers}-{number}"


@contextmanager
def _yardsticks(folder: Path) -> Iterator[dict[str, Address]]:
    path = folder / "fan-out.db"
    with spawned(serve_broadcast) as bare, spawned(serve_synced_broadcast, path) as synced:
        yield {BARE: bare.recv(), SYNCED: synced.recv()}
