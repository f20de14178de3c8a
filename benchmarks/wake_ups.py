"""How soon a follower in another process has a record, beside a plain notification of the database."""

from __future__ import annotations

import statistics
from typing import Any, Final

import attrs

from benchmarks import requests
from benchmarks.bench import Bench
from benchmarks.broadcast import Broadcast, Delivered
from benchmarks.fan_out import RATE
from benchmarks.figures import Comparison, Figure, Series, ratios
from benchmarks.load import Writer
from benchmarks.notifications import Notifications
from benchmarks.samples import Samples
from benchmarks.section import Checked, Row
from benchmarks.targets import in_turn
from benchmarks.yardsticks import Address
from harness.server import KEY

NOTIFY: Final = "plain NOTIFY"
SAME: Final = "server, same process"
OTHER: Final = "server, another process"
TARGETS: Final = (NOTIFY, SAME, OTHER)
P99_AIM: Final = 20.0


@attrs.define
class WakeUps:
    """What was found, by target."""

    series: dict[str, Series] = attrs.field(factory=dict)
    checked: Checked = attrs.field(init=False, default=Checked())

    head = ("wake-up", "p50 ms", "p99 ms", f"p99 / {NOTIFY}")

    @property
    def rows(self) -> list[Row]:
        """One for each target."""
        return [self._row(target) for target in TARGETS]

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        p99 = [samples.p99 for samples in self.series[OTHER].rounds]
        return [Figure(name="append until a reader of another process has it: p99", values=p99, aim=P99_AIM, unit="ms")]

    @property
    def comparisons(self) -> list[Comparison]:
        """All targets."""
        p99 = {target: self.series[target].p99 for target in TARGETS}
        return [Comparison(name="wake-up: p99", unit="ms", values=p99, yardsticks=1, limit=P99_AIM)]

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        return [{"target": target, **series.as_json()} for target, series in self.series.items()]

    def _row(self, target: str) -> Row:
        series = self.series[target]
        p99s, plain = ([samples.p99 for samples in found.rounds] for found in (series, self.series[NOTIFY]))
        return target, f"{series.p50:.3f}", f"{series.p99:.3f}", f"{statistics.median(ratios(p99s, plain)):.1f}"

    def take(self, target: str, delivered: Delivered) -> Samples:
        """Take note of the records that were read, and return the times."""
        problems = [f"wake-ups, {target}: {what}" for what in delivered.problems]
        self.checked = Checked(self.checked.records + delivered.records, [*self.checked.problems, *problems])
        return delivered.samples


def measure(bench: Bench) -> WakeUps:
    """Write to one server and read from it or from another one on the same database, in turns with notifications."""
    stage, rounds, progress = bench.stage, bench.scale.wake_rounds, bench.progress
    progress.expect(rounds * len(TARGETS))
    found = WakeUps()
    stage.start()
    with stage.another() as other:
        stage.create([_session(target, number) for target in (SAME, OTHER) for number in range(rounds)])
        readers = {SAME: Address(stage.port, stage.pid), OTHER: Address(other.port, other.pid)}
        for number in range(rounds):
            for target in in_turn(TARGETS, number):
                progress.step(f"wake-ups: round {number + 1} of {rounds}: {target}")
                if target == NOTIFY:
                    samples = bench.client.measure(_notifications(bench))
                else:
                    delivered = bench.client.measure(_job(bench, readers[target], _session(target, number)))
                    samples = found.take(target, delivered)
                found.series.setdefault(target, Series()).rounds.append(samples)
    stage.stop()
    return found


def _notifications(bench: Bench) -> Notifications:
    url, scale = bench.stage.backends.database_url, bench.scale
    assert url is not None
    return Notifications(url=url, rate=RATE, warm_up_seconds=scale.fan_out_warm_up_seconds, seconds=scale.wake_seconds)


def _job(bench: Bench, reader: Address, session: str) -> Broadcast:
    return Broadcast(
        port=reader.port,
        writer_port=bench.stage.port,
        pid=reader.pid,
        writer=Writer(name="wake-ups", session=session, token=KEY, io=requests.OUT),
        subscription=requests.subscribe(session, bench.stage.tokens[session]),
        readers=1,
        rate=RATE,
        warm_up_seconds=bench.scale.fan_out_warm_up_seconds,
        seconds=bench.scale.wake_seconds,
        counts_streams=True,
    )


def _session(target: str, number: int) -> str:
    return f"wake-up-{TARGETS.index(target)}-{number}"
