"""Brings what changes in the store into the index: one process at a time, each change at least once.

How this works
--------------
Who leads streams the store's changes in the order of their commits. They gather, the newest state of each session only,
until there are enough or the oldest has waited long enough; then they are written together. A position of the store's log
is acknowledged when everything up to it is in the index, and the store gives everything after it again to whoever comes
next. So whatever dies, at whatever moment, nothing is left out; and what comes twice does no harm, because the index keeps
the larger version of a session.

Two leaders for a moment, one of them late, are harmless for the same reason; and only one of them has the stream.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import attrs

from sessions_core.domain.events import LeadershipChanged
from sessions_core.ports.change_feed import ChangeFeed
from sessions_core.ports.clock import Clock
from sessions_core.ports.dead_letters import DeadLetters
from sessions_core.ports.leader_lock import LeaderLock
from sessions_core.ports.observer import Observer
from sessions_core.ports.session_index import IndexWriter
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_core.services.replication.delivery import Delivery
from sessions_core.services.replication.health import Health, HealthWatch
from sessions_core.services.replication.stopping import Stop
from sessions_core.services.replication.subscriber import Subscriber
from sessions_core.unwrapping import unwrapped


@attrs.define(kw_only=True, eq=False)
class Replicator:
    """Replicates while it leads, and waits for its turn while somebody else does.

    What the ports cannot do at the moment is told to the observer and tried again. Any number of processes may have one; use
    one at a time of each.
    """

    feed: ChangeFeed
    writer: IndexWriter
    dead_letters: DeadLetters
    leader: LeaderLock
    clock: Clock
    observer: Observer
    config: ReplicatorConfig = attrs.field(factory=ReplicatorConfig)
    chance: Callable[[], float] = random.random
    _watch: HealthWatch = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._watch = HealthWatch(self.observer, self.clock)

    @property
    def health(self) -> Health:
        """How it is now."""
        return self._watch.health

    async def run(self) -> None:
        """Replicate until cancelled; ends as :meth:`running` does."""
        async with self.running():
            await anyio.sleep_forever()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Replicate inside the block.

        At its end, also when that is cancelled, nothing more is read; what has been read is written and acknowledged, if the
        time of ``stop_timeout`` is enough for that. The rest is read again by whoever comes next.
        """
        stop, limit, is_over = Stop(), anyio.CancelScope(shield=True), anyio.Event()
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._work, stop, limit, is_over)
                try:
                    yield
                finally:
                    stop.ask()
                    with anyio.move_on_after(self.config.stop_timeout.total_seconds(), shield=True):
                        await is_over.wait()
                    limit.cancel()

    async def _work(self, stop: Stop, limit: anyio.CancelScope, is_over: anyio.Event) -> None:
        """Lead again and again until a stop; *limit* ends it at once."""
        try:
            with limit:
                while not stop.is_asked_for:
                    await self._lead(stop)
        finally:
            is_over.set()

    async def _lead(self, stop: Stop) -> None:
        """Wait for leadership, and replicate until it is lost or a stop is asked for."""
        with stop.interrupting() as waiting:
            async with anyio.create_task_group() as tasks:
                patience = anyio.CancelScope()
                tasks.start_soon(self._tell_if_second, patience)
                async with self.leader.hold(self.config.name) as leading:
                    stop.spare(waiting)
                    patience.cancel()
                    with leading:
                        await self._replicate(stop)

    async def _tell_if_second(self, patience: anyio.CancelScope) -> None:
        with patience:
            longest = self.config.leader_lock_timeout + self.config.leader_lock_additional_time
            await anyio.sleep(longest.total_seconds())
            self._watch(LeadershipChanged(name=self.config.name, is_leader=False))

    async def _replicate(self, stop: Stop) -> None:
        self._watch(LeadershipChanged(name=self.config.name, is_leader=True))
        delivery = Delivery(
            writer=self.writer,
            dead_letters=self.dead_letters,
            clock=self.clock,
            observer=self._watch,
            config=self.config,
            chance=self.chance,
        )
        try:
            await Subscriber(
                feed=self.feed,
                delivery=delivery,
                clock=self.clock,
                observer=self._watch,
                config=self.config,
                stop=stop,
            ).run()
        finally:
            self._watch(LeadershipChanged(name=self.config.name, is_leader=False))
