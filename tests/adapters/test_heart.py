"""Heartbeats that come from a thread of their own, with an event loop of its own."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager

import anyio
import attrs
import pytest

from sessions_core.domain.events import SystemFailed
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import Holding
from sessions_core.errors import StoreUnavailableError
from sessions_core.services.heartbeat import Beat, Heart
from sessions_core.testing.processes import Notebook

SOON = 10.0
HELD = (Holding(RunId("run_kept"), 1), Holding(RunId("run_lost"), 1))


@attrs.define(eq=False)
class Store:
    """Takes heartbeats, of which the first *failures* fail; None is one without an answer."""

    failures: list[Exception | None]
    threads: set[int] = attrs.field(factory=set)
    opened: int = 0

    async def beat(self, holdings: Collection[Holding]) -> frozenset[RunId]:
        self.threads.add(threading.get_ident())
        if self.failures:
            failure = self.failures.pop(0)
            if failure is None:
                await anyio.sleep_forever()
            else:
                raise failure
        return frozenset({RunId("run_lost")}) & {holding.run_id for holding in holdings}

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Beat]:
        self.opened += 1
        yield self.beat


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (StoreUnavailableError(), str(StoreUnavailableError())),
        (RuntimeError("password"), "RuntimeError"),
        (None, "TimeoutError"),
    ],
)
async def test_heartbeats_go_on_after_whatever_failure(failure: Exception | None, told: str) -> None:
    store, notebook, lost = Store([failure, failure]), Notebook(), anyio.Event()
    stopped: list[frozenset[RunId]] = []

    def lose(runs: frozenset[RunId]) -> None:
        stopped.append(runs)
        lost.set()

    heart = Heart(held=lambda: HELD, lose=lose, observer=notebook, interval_seconds=0.01)
    async with heart.beating_in_thread(store.open):
        with anyio.fail_after(SOON):
            await lost.wait()
    assert stopped[0] == {"run_lost"}
    assert store.opened == 3
    assert notebook.events == [SystemFailed(step="heartbeat", error=told)] * 2
    assert threading.get_ident() not in store.threads
