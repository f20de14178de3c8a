"""The backfill: in any order with the stream, through trouble, never twice at once, and on from where it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sessions_core.domain.events import BackfillAdvanced, SystemFailed
from sessions_core.domain.ids import SessionId
from sessions_core.errors import IndexUnavailableError, StoreUnavailableError
from sessions_core.ports.change_feed import ChangeKind, UnreadableChange
from sessions_core.ports.session_index import IndexRow
from sessions_core.ports.session_scan import BackfillProgress, ScanChunk, SessionScan
from sessions_core.services.replication.backfill import Backfill
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_core.services.replication.delivery import Delivery
from unit.core.replication.kit import LONG, World

CONFIG = ReplicatorConfig()


@attrs.define(eq=False)
class Scan(SessionScan):
    """Reads the sessions of a world. The position of its feed is their version.

    Attributes:
        failures: So many calls fail first.
        odd: The session that nobody can read.
        passes: How many have begun.
    """

    world: World
    failures: int = 0
    odd: str | None = None
    passes: int = 0
    position: int = 0
    progress: BackfillProgress | None = None

    async def estimate(self) -> int:
        await self._answer()
        return len(self.world.sessions)

    async def read(self, after: SessionId | None, limit: int) -> ScanChunk:
        await self._answer()
        ids = sorted(name for name in self.world.sessions if after is None or name > after)[:limit]
        readable = [self.world.sessions[name] for name in ids if name != self.odd]
        return ScanChunk(
            rows=tuple(IndexRow(session, self.position) for session in readable),
            unreadable=tuple(self._unreadable(name) for name in ids if name == self.odd),
            last=ids[-1] if ids else None,
        )

    def _unreadable(self, name: str) -> UnreadableChange:
        return UnreadableChange(
            kind=ChangeKind.INSERT, session=name, version=self.position, reason="odd", columns={"id": name}
        )

    async def find_progress(self) -> BackfillProgress | None:
        await self._answer()
        return self.progress

    async def begin(self) -> BackfillProgress:
        await self._answer()
        self.passes += 1
        self.progress = BackfillProgress(started_at=self.world.clock.now())
        return self.progress

    async def save(self, progress: BackfillProgress) -> None:
        await self._answer()
        self.progress = progress

    async def end(self, progress: BackfillProgress) -> BackfillProgress:
        await self._answer()
        self.progress = attrs.evolve(progress, ended_at=self.world.clock.now())
        return self.progress

    async def _answer(self) -> None:
        await checkpoint()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError


def make(world: World, scan: Scan, chunk_size: int = 3) -> Backfill:
    shared: dict[str, Any] = {"clock": world.clock, "observer": world.observer, "config": CONFIG}
    return Backfill(
        scan=scan,
        delivery=Delivery(writer=world.index, dead_letters=world.letters, **shared),
        leader=world.lock,
        chunk_size=chunk_size,
        **shared,
    )


def filled(count: int) -> World:
    """Return a world with sessions that no stream tells of any more."""
    world = World()
    for number in range(count):
        world.put(f"{number:03}")
    return world


def scan_of(world: World) -> Scan:
    return Scan(world, position=len(world.log) + 1)


@asynccontextmanager
async def under_way(backfill: Backfill) -> AsyncIterator[anyio.CancelScope]:
    """Run *backfill* beside the block, which gets the scope to kill it with."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(backfill.run)
        yield tasks.cancel_scope


async def test_every_session_is_written_once_in_chunks() -> None:
    world = filled(10)
    ended = await make(world, scan_of(world)).run()
    assert world.index.sessions == world.sessions
    assert world.index.writes == [3, 3, 3, 1]
    assert (ended.done, ended.ended_at is None) == (10, False)
    assert [event.done for event in world.observer.of(BackfillAdvanced)] == [0, 3, 6, 9, 10]


async def test_an_empty_store_is_filled_in_at_once() -> None:
    world = World()
    assert (await make(world, Scan(world)).run()).done == 0
    assert world.index.writes == []


async def test_what_the_stream_has_written_stays() -> None:
    world = filled(3)
    scan = scan_of(world)
    newer = IndexRow(attrs.evolve(world.sessions[SessionId("session_001")], tags=("newer",)), scan.position + 1)
    gone = IndexRow(world.sessions[SessionId("session_002")], scan.position + 2, is_deleted=True)
    await world.index.write([newer, gone])
    await make(world, scan).run()
    assert sorted(world.index.sessions) == ["session_000", "session_001"]
    assert world.index.sessions[SessionId("session_001")].tags == ("newer",)


async def test_a_backfill_that_dies_goes_on_after_the_last_chunk_that_was_saved() -> None:
    world = filled(10)
    scan = scan_of(world)

    async def die(_: object) -> None:
        if len(world.index.writes) == 2:
            killed.cancel()
        await checkpoint()

    world.index.mood = die
    async with under_way(make(world, scan)) as killed:
        await anyio.sleep(LONG)
    assert world.index.writes == [3, 3]

    world.index.mood = World().index.mood
    ended = await make(world, scan).run()
    assert (ended.done, scan.passes) == (10, 1)
    assert world.index.writes == [3, 3, 3, 1]
    assert world.index.sessions == world.sessions


async def test_one_that_has_ended_begins_anew() -> None:
    world = filled(2)
    scan = scan_of(world)
    await make(world, scan).run()
    await make(world, scan).run()
    assert scan.passes == 2


async def test_it_waits_for_a_store_and_an_index_that_are_away() -> None:
    world = filled(5)
    scan = scan_of(world)
    scan.failures = 7
    failures = [IndexUnavailableError()] * 2

    async def away(_: object) -> None:
        await checkpoint()
        if failures:
            raise failures.pop()

    world.index.mood = away
    ended = await make(world, scan).run()
    assert ended.done == 5
    assert world.index.sessions == world.sessions
    assert len(world.observer.of(SystemFailed)) == 7


async def test_two_at_once_take_turns() -> None:
    world = filled(4)
    scan = scan_of(world)
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(make(world, scan).run)
    assert world.index.busiest == 1
    assert world.index.sessions == world.sessions


async def test_a_lost_leadership_is_taken_again() -> None:
    world = filled(6)
    scan = scan_of(world)

    async def lose(_: object) -> None:
        if len(world.index.attempts) == 2:
            world.lock.lose()
        await checkpoint()

    world.index.mood = lose
    ended = await make(world, scan).run()
    assert ended.done == 6
    assert world.index.sessions == world.sessions


async def test_what_cannot_be_read_is_a_dead_letter_and_counted() -> None:
    world = filled(4)
    scan = scan_of(world)
    scan.odd = "session_002"
    ended = await make(world, scan).run()
    assert ended.done == 4
    assert [letter.session for letter in await world.letters.list_latest(10)] == ["session_002"]
    assert len(world.index.sessions) == 3
