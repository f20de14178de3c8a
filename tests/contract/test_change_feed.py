"""What every change feed guarantees."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise

import anyio
import pytest
from anyio.lowlevel import checkpoint

from contract.makers import at_once, initial, make_session
from harness.feeding import PATIENCE_SECONDS, next_batch
from sessions_core.domain.session import Session, SessionUpdate
from sessions_core.errors import InvalidError, StoreInUseError, StoreUnavailableError
from sessions_core.ports.change_feed import ChangeBatch, ChangeFeed, ChangeKind, ChangeStream
from sessions_core.ports.session_store import SessionStore


@asynccontextmanager
async def opened(feed: ChangeFeed) -> AsyncGenerator[ChangeStream]:
    """Open a stream as soon as nobody else has one: a place may not be free at the moment in which a stream is closed."""
    end = anyio.current_time() + PATIENCE_SECONDS
    async with AsyncExitStack() as stack:
        stream = None
        while stream is None:
            try:
                stream = await stack.enter_async_context(feed.open())
            except StoreInUseError:
                assert anyio.current_time() < end
                await anyio.sleep(0.005)
        yield stream


async def create(store: SessionStore, name: str) -> Session:
    session = make_session(name)
    return (await store.create(session, initial(session))).session


async def read_to(stream: ChangeStream, *wanted: Session) -> list[ChangeBatch]:
    """Read on until each session has come in the state *wanted*."""
    batches: list[ChangeBatch] = []
    missing = list(wanted)
    while missing:
        batches.append(await next_batch(stream))
        seen = [change.row.session for change in batches[-1].changes]
        missing = [session for session in missing if session not in seen]
    return batches


def names(batches: list[ChangeBatch]) -> list[str]:
    """Return whose changes came, each name once where one follows the other."""
    ids: list[str] = [change.row.session.id for batch in batches for change in batch.changes]
    return ids[:1] + [later for earlier, later in pairwise(ids) if earlier != later]


@pytest.fixture(autouse=True)
async def place(change_feed: ChangeFeed) -> None:
    """Changes are kept from the first time on that somebody has opened a stream."""
    async with change_feed.open():
        pass


async def test_a_session_comes_in_every_state_that_the_store_gave_it(
    change_feed: ChangeFeed, changing_store: SessionStore
) -> None:
    async with opened(change_feed) as stream:
        created = await create(changing_store, "one")
        first = await read_to(stream, created)
        assert first[0].changes[0].kind is ChangeKind.INSERT
        for change in (SessionUpdate(tags=("a", "b")), SessionUpdate(metadata={"n": [1, None, "x"]})):
            updated = await changing_store.update(created.environment.id, created.id, change)
            [batch] = await read_to(stream, updated)
            assert {one.kind for one in batch.changes} == {ChangeKind.UPDATE}
        closed = await changing_store.close(created.environment.id, created.id, "enough")
        [batch] = await read_to(stream, closed)
        assert not batch.changes[-1].row.is_deleted


async def test_versions_rise_with_every_commit_and_positions_never_fall(
    change_feed: ChangeFeed, changing_store: SessionStore
) -> None:
    async with opened(change_feed) as stream:
        sessions = [await create(changing_store, f"{number}") for number in range(5)]
        last = await changing_store.close(sessions[0].environment.id, sessions[0].id, None)
        batches = await read_to(stream, *sessions, last)
    versions = [{change.row.version for change in batch.changes} for batch in batches]
    assert all(len(one) == 1 for one in versions)
    assert all(min(earlier) < min(later) for earlier, later in pairwise(versions))
    assert all(earlier.position <= later.position for earlier, later in pairwise(batches))


async def test_changes_come_in_the_order_of_their_commits(
    change_feed: ChangeFeed, changing_store: SessionStore
) -> None:
    sessions = [await create(changing_store, name) for name in "dbca"]
    async with opened(change_feed) as stream:
        assert names(await read_to(stream, *sessions)) == [session.id for session in sessions]


async def test_all_changes_of_many_writers_come(change_feed: ChangeFeed, changing_store: SessionStore) -> None:
    async with opened(change_feed) as stream:
        sessions = await at_once([partial(create, changing_store, f"{number}") for number in range(20)])
        await read_to(stream, *sessions)


async def test_what_happened_while_nobody_streamed_is_not_missed(
    change_feed: ChangeFeed, changing_store: SessionStore
) -> None:
    session = await create(changing_store, "one")
    async with opened(change_feed) as stream:
        await read_to(stream, session)


async def test_what_is_not_acknowledged_comes_again_and_all_else_does_not(
    change_feed: ChangeFeed, changing_store: SessionStore
) -> None:
    sessions = [await create(changing_store, name) for name in "abcd"]
    async with opened(change_feed) as stream:
        first = await read_to(stream, sessions[0], sessions[1])
        await read_to(stream, sessions[2])
        stream.acknowledge(first[-1].position)
    for _ in range(2):
        async with opened(change_feed) as stream:
            assert names(await read_to(stream, sessions[3])) == [sessions[2].id, sessions[3].id]


async def test_a_later_acknowledgement_of_less_takes_nothing_back(
    change_feed: ChangeFeed, changing_store: SessionStore
) -> None:
    sessions = [await create(changing_store, name) for name in "ab"]
    async with opened(change_feed) as stream:
        batches = await read_to(stream, *sessions)
        stream.acknowledge(batches[-1].position)
        stream.acknowledge(batches[0].position)
        stream.acknowledge(0)
    after = await create(changing_store, "c")
    async with opened(change_feed) as stream:
        assert names(await read_to(stream, after)) == [after.id]


async def test_only_what_was_handed_out_can_be_acknowledged(
    change_feed: ChangeFeed, changing_store: SessionStore
) -> None:
    session = await create(changing_store, "one")
    async with opened(change_feed) as stream:
        batches = await read_to(stream, session)
        with pytest.raises(InvalidError):
            stream.acknowledge(batches[-1].position + 1)


async def test_there_is_one_stream_at_a_time(change_feed: ChangeFeed, changing_store: SessionStore) -> None:
    async with opened(change_feed) as stream:
        for _ in range(3):
            with pytest.raises(StoreInUseError):
                async with change_feed.open():
                    pass
        session = await create(changing_store, "one")
        await read_to(stream, session)


async def test_a_stream_that_failed_its_reader_lets_the_next_one_in(
    change_feed: ChangeFeed, changing_store: SessionStore
) -> None:
    session = await create(changing_store, "one")

    async def fail() -> None:
        async with opened(change_feed) as stream:
            await read_to(stream, session)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with opened(change_feed) as stream:
        await read_to(stream, session)


async def test_a_closed_stream_gives_nothing_more(change_feed: ChangeFeed, changing_store: SessionStore) -> None:
    async with opened(change_feed) as stream:
        pass
    await create(changing_store, "one")
    with pytest.raises(StoreUnavailableError):
        await next_batch(stream)


async def test_who_gives_up_waiting_loses_nothing(change_feed: ChangeFeed, changing_store: SessionStore) -> None:
    sessions: list[Session] = []
    seen: list[ChangeBatch] = []
    async with opened(change_feed) as stream, anyio.create_task_group() as tasks:

        async def write() -> None:
            sessions.extend([await create(changing_store, f"{number}") for number in range(20)])

        tasks.start_soon(write)
        with anyio.fail_after(PATIENCE_SECONDS):
            while len({change.row.session.id for batch in seen for change in batch.changes}) < 20:
                with anyio.move_on_after(0.002):
                    seen.append(await anext(stream))
                await checkpoint()
    assert names(seen) == [session.id for session in sessions]
