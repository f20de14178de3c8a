"""What a reader costs that waits for a record which does not come."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from typing import Any, Final

import attrs

from benchmarks import requests, usage
from benchmarks.bench import Bench
from benchmarks.broadcaster import serve_broadcast
from benchmarks.figures import Comparison, Figure
from benchmarks.processes import spawned
from benchmarks.readers import subscribe
from benchmarks.section import NOTHING_CHECKED, Row
from benchmarks.targets import BARE
from benchmarks.usage import Memory
from benchmarks.yardsticks import Address, serve_bare

AIOHTTP: Final = "bare aiohttp"
ONE_SESSION: Final = "server, one session"
OWN_SESSIONS: Final = "server, a session each"
TARGETS: Final = (BARE, AIOHTTP, ONE_SESSION, OWN_SESSIONS)
AIM_KB: Final = 30.0
PATIENCE_SECONDS: Final = 60
_SETTLE_SECONDS: Final = 0.5


@attrs.frozen(kw_only=True)
class IdleReaders:
    """Readers that come, wait, and leave.

    Attributes:
        pid: The process whose memory is looked at.
        subscriptions: Their requests. The first comes once before, so that what is made once is not counted.
    """

    port: int
    pid: int
    subscriptions: tuple[bytes, ...]

    def run(self) -> Memory:
        """Return what each reader has added to the memory of the server."""
        return asyncio.run(self._run())

    async def _run(self) -> Memory:
        [first] = await subscribe(self.port, self.subscriptions[:1], PATIENCE_SECONDS)
        first.leave()
        await asyncio.sleep(_SETTLE_SECONDS)
        before = usage.memory(self.pid)
        crew = await subscribe(self.port, self.subscriptions, PATIENCE_SECONDS)
        await asyncio.sleep(_SETTLE_SECONDS)
        after = usage.memory(self.pid)
        for reader in crew:
            reader.leave()
        return after.per_reader(before, len(crew))


@attrs.frozen
class IdleMemory:
    """What was found: kB for each reader, by target, in each round."""

    readers: int
    rounds: dict[str, list[Memory]] = attrs.field(factory=dict)
    checked = NOTHING_CHECKED

    @property
    def head(self) -> Row:
        """The head of the table."""
        return (f"memory of {self.readers} idle readers", "RSS kB each", "PSS kB each", "USS kB each")

    @property
    def rows(self) -> list[Row]:
        """One for each target."""
        return [(target, *(f"{value:.1f}" for value in attrs.astuple(self._median(target)))) for target in TARGETS]

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        return [
            Figure(name=f"idle reader, {target}", values=self._rss(target), aim=AIM_KB, unit="kB")
            for target in (ONE_SESSION, OWN_SESSIONS)
        ]

    @property
    def comparisons(self) -> list[Comparison]:
        """All targets."""
        rss = {target: self._median(target).rss for target in TARGETS}
        return [
            Comparison(name=f"an idle reader, of {self.readers}", unit="kB", values=rss, yardsticks=2, limit=AIM_KB)
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """Return everything that was measured."""
        return [
            {"target": target, "readers": self.readers, "kBEach": [attrs.asdict(memory) for memory in rounds]}
            for target, rounds in self.rounds.items()
        ]

    def _rss(self, target: str) -> list[float]:
        return [memory.rss for memory in self.rounds[target]]

    def _median(self, target: str) -> Memory:
        of_rounds = zip(*map(attrs.astuple, self.rounds[target]), strict=True)
        return Memory(**dict(zip(("rss", "pss", "uss"), map(statistics.median, of_rounds), strict=True)))


def measure(bench: Bench) -> IdleMemory:
    """Fill each target with idle readers. Each time it is a fresh process, which has no free memory to reuse."""
    stage, rounds = bench.stage, bench.scale.memory_rounds
    bench.progress.expect(rounds * len(TARGETS))
    names = [f"idle-reader-{number}" for number in range(bench.readers)]
    stage.start()
    stage.create(names)
    stage.stop()
    requests_of = {target: _subscriptions(bench, names[:1] * len(names)) for target in TARGETS}
    requests_of[OWN_SESSIONS] = _subscriptions(bench, names)
    found = IdleMemory(len(names))
    for number in range(rounds):
        for target in TARGETS:
            bench.progress.step(f"memory: round {number + 1} of {rounds}: {target}")
            memory = _measure(bench, target, requests_of[target])
            found.rounds.setdefault(target, []).append(memory)
    return found


def _measure(bench: Bench, target: str, subscriptions: tuple[bytes, ...]) -> Memory:
    if target in _YARDSTICKS:
        with spawned(_YARDSTICKS[target]) as pipe:
            return _fill(bench, pipe.recv(), subscriptions)
    bench.stage.start()
    try:
        return _fill(bench, Address(bench.stage.port, bench.stage.pid), subscriptions)
    finally:
        bench.stage.stop()


def _fill(bench: Bench, address: Address, subscriptions: tuple[bytes, ...]) -> Memory:
    return bench.client.measure(IdleReaders(port=address.port, pid=address.pid, subscriptions=subscriptions))


def _subscriptions(bench: Bench, names: list[str]) -> tuple[bytes, ...]:
    return tuple(requests.subscribe(name, bench.stage.tokens[name]) for name in names)


_YARDSTICKS: Final[dict[str, Callable[..., None]]] = {BARE: serve_broadcast, AIOHTTP: serve_bare}
