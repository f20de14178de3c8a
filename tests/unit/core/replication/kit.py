"""A store whose changes are streamed, an index that may be in any mood, and processes that may die between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint

from contract.makers import make_session
from sessions_adapters.memory import InMemoryChangeFeed, InMemoryDeadLetters
from sessions_core.domain.ids import SessionId
from sessions_core.domain.session import Session
from sessions_core.errors import IndexRefusedError
from sessions_core.ports.change_feed import Change, ChangeBatch, ChangeFeed, ChangeKind, ChangeStream, UnreadableChange
from sessions_core.ports.dead_letters import DeadLetter, DeadLetters
from sessions_core.ports.leader_lock import LeaderLock
from sessions_core.ports.session_index import IndexRow, IndexWriter
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_core.services.replication.replicator import Replicator
from sessions_core.unwrapping import leaves
from unit.core.taps import Crash, Tap
from unit.core.world import LoopClock, Notebook

POISON = "poison"
"""The index refuses sessions of this type."""
ROW_BYTES = 1000
"""What each row is said to have."""
LONG = 100_000.0
"""Seconds in which everything happens that is going to happen."""
Found = Change | UnreadableChange
Mood = Callable[[Sequence[IndexRow]], Awaitable[None]]


async def _at_ease(_: Sequence[IndexRow]) -> None:
    await checkpoint()


@attrs.define(eq=False)
class Index(IndexWriter):
    """Keeps the largest version of each session, and refuses poison.

    Attributes:
        mood: What it does before each write; may take its time, or raise.
        after: The same after the write.
        writes: The sizes of the batches that were written.
        busiest: How many writes there were at once at most.
    """

    rows: dict[SessionId, IndexRow] = attrs.field(factory=dict)
    mood: Mood = _at_ease
    after: Mood = _at_ease
    writes: list[int] = attrs.field(factory=list)
    attempts: list[float] = attrs.field(factory=list)
    busy: int = 0
    busiest: int = 0

    async def write(self, rows: Sequence[IndexRow]) -> None:
        assert rows
        assert len({row.session.id for row in rows}) == len(rows)
        self.attempts.append(anyio.current_time())
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await self.mood(rows)
            if any(row.session.type == POISON for row in rows):
                raise IndexRefusedError
            self.keep(rows)
            self.writes.append(len(rows))
            await self.after(rows)
        finally:
            self.busy -= 1

    def keep(self, rows: Sequence[IndexRow]) -> None:
        for row in rows:
            kept = self.rows.get(row.session.id)
            if kept is None or row.version >= kept.version:
                self.rows[row.session.id] = row

    @property
    def sessions(self) -> dict[SessionId, Session]:
        """What lists would show."""
        return {name: row.session for name, row in self.rows.items() if not row.is_deleted}


@attrs.define(eq=False)
class Lock(LeaderLock):
    """A lock whose holder may lose it at any moment. Then somebody else may have it at once."""

    holders: list[anyio.CancelScope] = attrs.field(factory=list)
    news: anyio.Event = attrs.field(factory=anyio.Event)

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncGenerator[anyio.CancelScope]:
        await checkpoint()
        while self.holders:
            await self.news.wait()
        scope = anyio.CancelScope()
        self.holders.append(scope)
        try:
            yield scope
        finally:
            self._leave(scope)

    def lose(self) -> None:
        for scope in tuple(self.holders):
            scope.cancel()
            self._leave(scope)

    def _leave(self, scope: anyio.CancelScope) -> None:
        if scope in self.holders:
            self.holders.remove(scope)
        news, self.news = self.news, anyio.Event()
        news.set()


@attrs.define(eq=False)
class World:
    """What outlives processes."""

    clock: LoopClock = attrs.field(factory=LoopClock)
    observer: Notebook = attrs.field(factory=Notebook)
    index: Index = attrs.field(factory=Index)
    letters: InMemoryDeadLetters = attrs.field(factory=InMemoryDeadLetters)
    lock: Lock = attrs.field(factory=Lock)
    feed: InMemoryChangeFeed = attrs.field(init=False)
    sessions: dict[SessionId, Session] = attrs.field(init=False, factory=dict)
    log: list[tuple[int, Found]] = attrs.field(init=False, factory=list)
    _states: count[int] = attrs.field(init=False, factory=lambda: count(1))

    def __attrs_post_init__(self) -> None:
        self.feed = InMemoryChangeFeed(self.clock)

    # --- Changes, each call a transaction ---

    def put(self, *names: object, type: str = "chat") -> int:  # noqa: A002 - the session's
        """Give each session a new state."""
        return self.commit(*[self.new_state(name, type) for name in names])

    def delete(self, *names: object) -> int:
        return self.commit(*[(ChangeKind.DELETE, self.sessions[SessionId(f"session_{name}")]) for name in names])

    def new_state(self, name: object, type: str = "chat") -> tuple[ChangeKind, Session]:  # noqa: A002
        session = make_session(str(name), type=type, tags=(str(next(self._states)),))
        return (ChangeKind.UPDATE if session.id in self.sessions else ChangeKind.INSERT, session)

    def commit(self, *steps: tuple[ChangeKind, Session]) -> int:
        def make(version: int) -> list[Change]:
            return [
                Change(kind, IndexRow(session, version, kind is ChangeKind.DELETE), ROW_BYTES)
                for kind, session in steps
            ]

        position = self.feed.commit(lambda version: self._logged(make(version)))
        for kind, session in steps:
            if kind is ChangeKind.DELETE:
                del self.sessions[session.id]
            else:
                self.sessions[session.id] = session
        return position

    def garble(self, session: str | None = None) -> int:
        """Commit what nobody can read."""

        def make(version: int) -> list[UnreadableChange]:
            columns = {"id": session, "n": str(next(self._states))}
            return [
                UnreadableChange(
                    kind=ChangeKind.UPDATE, session=session, version=version, reason="odd", columns=columns
                )
            ]

        return self.feed.commit(lambda version: self._logged(make(version)))

    def _logged(self, found: Sequence[Found]) -> Sequence[Found]:
        self.log += [
            (change.version if isinstance(change, UnreadableChange) else change.row.version, change) for change in found
        ]
        return found

    # --- Processes ---

    def replicator(self, tap: Tap | None = None, *, feed: ChangeFeed | None = None, **config: Any) -> Replicator:
        tap = tap or Tap()
        return Replicator(
            feed=feed or WatchedFeed(self, tap),
            writer=TappedWriter(self.index, tap),
            dead_letters=TappedLetters(self.letters, tap),
            leader=self.lock,
            clock=self.clock,
            observer=self.observer,
            config=ReplicatorConfig(**config),
            chance=lambda: 0.5,
        )

    def check_settled(self, position: int) -> None:
        """Check that everything up to *position* is in the index, or in the dead letters."""
        kept = self.letters._letters
        for version, change in self.log:
            if version <= position:
                assert self.is_settled(change, kept), f"acknowledged {position}, but {change} is nowhere"

    def is_settled(self, change: Found, kept: Sequence[DeadLetter]) -> bool:
        if isinstance(change, UnreadableChange):
            return any((letter.version, letter.columns) == (change.version, change.columns) for letter in kept)
        row = self.index.rows.get(change.row.session.id)
        in_index = row is not None and row.version >= change.row.version
        return in_index or any(
            letter.session == change.row.session.id and letter.version >= change.row.version for letter in kept
        )

    def is_done(self) -> bool:
        """Tell whether all that was committed is acknowledged."""
        return not self.feed._log

    async def until_done(self, longest: float = LONG) -> None:
        with anyio.fail_after(longest):
            while not self.is_done():
                await anyio.sleep(0.1)

    def check_equal(self) -> None:
        """Check that the index shows what the store has; where it refused a session, there is a letter."""
        kept = self.letters._letters
        poisoned = {name for name, session in self.sessions.items() if session.type == POISON}
        for name in poisoned:
            state = self.sessions[name].tags
            assert any(letter.session == name and str(state[0]) in str(letter.columns.get("tags")) for letter in kept)
        deleted_as_poison = {
            change.row.session.id
            for _, change in self.log
            if isinstance(change, Change) and change.row.is_deleted and change.row.session.type == POISON
        }
        odd = poisoned | deleted_as_poison
        shown = {name: session for name, session in self.index.sessions.items() if name not in odd}
        assert shown == {name: session for name, session in self.sessions.items() if name not in odd}


# --- Ports behind a tap, and an eye on acknowledgements -------------------------------------------------


@attrs.define(eq=False)
class TappedWriter(IndexWriter):
    inner: IndexWriter
    tap: Tap

    async def write(self, rows: Sequence[IndexRow]) -> None:
        await self.tap.before("write")
        await self.inner.write(rows)
        await self.tap.after("write")


@attrs.define(eq=False)
class TappedLetters(DeadLetters):
    inner: DeadLetters
    tap: Tap

    async def store(self, letters: Sequence[DeadLetter]) -> int:
        await self.tap.before("store")
        answer = await self.inner.store(letters)
        await self.tap.after("store")
        return answer

    async def count(self) -> int:
        return await self.inner.count()

    async def list_latest(self, limit: int) -> list[DeadLetter]:
        return await self.inner.list_latest(limit)


@attrs.define(eq=False)
class WatchedFeed(ChangeFeed):
    """Lets nothing be acknowledged before its time.

    Attributes:
        errors: What the next calls of ``open`` raise.
        opened: When it was tried to open a stream.
        broken: The stream that is open fails.
        handed: All changes that streams have given, in order.
        acknowledged: All positions, in order.
    """

    world: World
    tap: Tap = attrs.field(factory=Tap)
    errors: list[Exception] = attrs.field(factory=list)
    opened: list[float] = attrs.field(factory=list)
    broken: anyio.Event = attrs.field(factory=anyio.Event)
    handed: list[Found] = attrs.field(factory=list)
    acknowledged: list[int] = attrs.field(factory=list)
    open_now: int = 0
    _errors_of_stream: list[Exception] = attrs.field(init=False, factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[ChangeStream]:
        await self.tap.before("open")
        self.opened.append(anyio.current_time())
        if self.errors:
            raise self.errors.pop(0)
        async with self.world.feed.open() as stream:
            self.open_now += 1
            try:
                await self.tap.after("open")
                yield WatchedStream(stream, self)
            finally:
                self.open_now -= 1

    def break_with(self, error: Exception) -> None:
        """Let the stream that is open, or the next one, fail."""
        self._errors_of_stream.append(error)
        self.broken.set()


@attrs.define(eq=False)
class WatchedStream(ChangeStream):
    inner: ChangeStream
    feed: WatchedFeed

    def __aiter__(self) -> WatchedStream:
        return self

    async def __anext__(self) -> ChangeBatch:
        await self.feed.tap.before("next")
        batch = await self._next()
        self.feed.handed += [*batch.changes, *batch.unreadable]
        await self.feed.tap.after("next")
        return batch

    async def _next(self) -> ChangeBatch:
        """Return the next batch, unless the stream breaks first."""
        found: list[ChangeBatch] = []
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                await self.feed.broken.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            found.append(await anext(self.inner))
            tasks.cancel_scope.cancel()
        if found:
            return found[0]
        self.feed.broken = anyio.Event()
        raise self.feed._errors_of_stream.pop(0)

    def acknowledge(self, position: int) -> None:
        if getattr(self.feed.tap, "is_dead", False):
            raise Crash
        self.feed.world.check_settled(position)
        self.feed.acknowledged.append(position)
        self.inner.acknowledge(position)


async def survive(replicator: Replicator) -> None:
    """Replicate until the process dies or the caller cancels."""
    try:
        await replicator.run()
    except BaseException as error:
        if not any(isinstance(leaf, Crash) for leaf in leaves(error)):
            raise
