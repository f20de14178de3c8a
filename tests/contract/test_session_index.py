"""What every index of sessions guarantees.

An index that lags behind the store is caught up by its technology before each question.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from contract.makers import ENV_A, ENV_B, MILLISECOND, SECOND, START, initial, make_session
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import ExternalId, SessionId
from sessions_core.domain.pagination import Cursor, Direction, IndexEntry, Page, PageRequest, SessionFilter, make_page
from sessions_core.domain.session import Session, SessionUpdate
from sessions_core.domain.status import SessionStatus
from sessions_core.ports.session_index import SessionIndex
from sessions_core.ports.session_store import SessionStore
from sessions_core.testing import ManualClock

ALL = SessionFilter(environment_id=ENV_A.id)
MOST_PAGES = 50


async def fill(store: SessionStore, sessions: Iterable[Session]) -> None:
    for session in sessions:
        await store.create(session, initial(session))


def spread(count: int, per_millisecond: int = 1, **members: Any) -> list[Session]:
    """Make sessions, newest first, of which *per_millisecond* share each millisecond."""
    moments = [START + (number // per_millisecond) * MILLISECOND for number in range(count)]
    sessions = [make_session(f"{n * 7 % count:03}", at=moment, **members) for n, moment in enumerate(moments)]
    return sorted(sessions, key=lambda session: (session.created_at, session.id), reverse=True)


def ids_of(items: Iterable[Any]) -> list[SessionId]:
    return [item.id for item in items]


async def walk(
    index: SessionIndex, wanted: SessionFilter, size: int, direction: Direction, cursor: Cursor | None = None
) -> list[list[SessionId]]:
    """Follow the cursors from page to page; each page newest first."""
    pages: list[list[SessionId]] = []
    while True:
        assert len(pages) < MOST_PAGES, "the walk does not end"
        request = PageRequest(size=size, cursor=cursor, direction=direction)
        page = make_page(await index.select(ENV_A, wanted, request), request)
        pages.append(ids_of(page.items))
        cursor = page.next if direction is Direction.AFTER else page.previous
        if cursor is None:
            return pages


# --- order and cursors ---


async def test_entries_come_newest_first_and_tell_their_time(
    session_index: SessionIndex, indexed_store: SessionStore
) -> None:
    sessions = spread(5)
    await fill(indexed_store, reversed(sessions))
    entries = await session_index.select(ENV_A, ALL, PageRequest(size=10))
    assert entries == [IndexEntry(session.created_at, session.id) for session in sessions]


async def test_of_equal_milliseconds_the_greater_id_comes_first(
    session_index: SessionIndex, indexed_store: SessionStore
) -> None:
    await fill(indexed_store, [make_session(name) for name in ("b", "A", "a", "B", "aa", "_", "0")])
    entries = await session_index.select(ENV_A, ALL, PageRequest(size=10))
    assert ids_of(entries) == [f"session_{name}" for name in ("b", "aa", "a", "_", "B", "A", "0")]


@pytest.mark.parametrize("size", [1, 3, 9, 10, 11])
async def test_one_entry_more_than_the_size_tells_that_there_is_more(
    session_index: SessionIndex, indexed_store: SessionStore, size: int
) -> None:
    await fill(indexed_store, spread(10))
    assert len(await session_index.select(ENV_A, ALL, PageRequest(size=size))) == min(size + 1, 10)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("per_millisecond", [1, 4, 20])
async def test_a_walk_sees_every_session_once_in_both_directions(
    session_index: SessionIndex, indexed_store: SessionStore, size: int, per_millisecond: int
) -> None:
    sessions = spread(20, per_millisecond)
    await fill(indexed_store, sessions)
    forth = await walk(session_index, ALL, size, Direction.AFTER)
    assert [session_id for page in forth for session_id in page] == ids_of(sessions)
    oldest = Cursor(sessions[-1].created_at, sessions[-1].id)
    back = await walk(session_index, ALL, size, Direction.BEFORE, oldest)
    assert [session_id for page in reversed(back) for session_id in page] == ids_of(sessions[:-1])


@pytest.mark.parametrize("position", range(6))
async def test_the_row_at_the_cursor_is_not_returned(
    session_index: SessionIndex, indexed_store: SessionStore, position: int
) -> None:
    sessions = spread(6, 3)
    await fill(indexed_store, sessions)
    cursor = Cursor(sessions[position].created_at, sessions[position].id)
    older = await session_index.select(ENV_A, ALL, PageRequest(size=10, cursor=cursor))
    newer = await session_index.select(ENV_A, ALL, PageRequest(size=10, cursor=cursor, direction=Direction.BEFORE))
    assert ids_of(older) == ids_of(sessions[position + 1 :])
    assert ids_of(newer) == ids_of(sessions[:position])[::-1]


async def test_a_cursor_may_lie_where_no_row_is(session_index: SessionIndex, indexed_store: SessionStore) -> None:
    sessions = spread(6, 3)
    await fill(indexed_store, sessions)
    cursor = Cursor(sessions[2].created_at, SessionId(sessions[2].id[:-1]))  # just below three rows of one millisecond
    older = await session_index.select(ENV_A, ALL, PageRequest(size=10, cursor=cursor))
    assert ids_of(older) == [s.id for s in sessions if (s.created_at, s.id) < (cursor.created_at, cursor.id)]


async def test_rows_that_come_during_a_walk_neither_double_nor_hide_the_others(
    session_index: SessionIndex, indexed_store: SessionStore
) -> None:
    sessions = spread(12, 4)
    await fill(indexed_store, sessions)
    seen: list[SessionId] = []
    cursor: Cursor | None = None
    for number in range(12):
        request = PageRequest(size=2, cursor=cursor)
        page: Page = make_page(await session_index.select(ENV_A, ALL, request), request)
        seen.extend(ids_of(page.items))
        cursor = page.next
        if cursor is None:
            break
        await fill(indexed_store, [make_session(f"new {number}", at=START + SECOND)])
        await fill(indexed_store, [make_session(f"mid {number}", at=START + number * MILLISECOND)])
    assert len(set(seen)) == len(seen)
    assert [session_id for session_id in seen if session_id in ids_of(sessions)] == ids_of(sessions)


async def test_an_empty_index_has_no_entries(session_index: SessionIndex) -> None:
    assert await session_index.select(ENV_A, ALL, PageRequest()) == []
    assert await session_index.count(ENV_A, ALL) == 0
    assert await session_index.list_tags(ENV_A) == []


# --- filters ---

NOW = START + timedelta(hours=1)
POPULATION = [
    make_session("plain"),
    make_session("typed", type="voice", at=START + SECOND),
    make_session("tagged", tags=("a", "b"), at=START + SECOND),
    make_session("tagged too", tags=("b", "B", "b"), task="other", at=START + SECOND),
    make_session("named", external_id="mine", task="other", at=START + 2 * SECOND),
    make_session("expiring", expires_at=NOW, tags=("a",), at=START + 3 * SECOND),
    make_session("lasting", expires_at=NOW + MILLISECOND, at=START + 3 * SECOND),
    make_session("closed", type="voice", at=START + 4 * SECOND),
    make_session("expired and closed", expires_at=NOW, tags=("",), at=START + 4 * SECOND),
    make_session("theirs", environment=ENV_B, external_id="mine", tags=("a", "theirs"), at=START + 4 * SECOND),
]
CLOSED_ONES = ("session_closed", "session_expired and closed")
FILTERS: list[dict[str, Any]] = [
    {},
    {"types": ("voice",)},
    {"types": ("voice", "chat", "none")},
    {"types": ("none",)},
    {"types": ("v%",)},
    {"tags": ("a",)},
    {"tags": ("b", "a")},
    {"tags": ("B",)},
    {"tags": ("",)},
    {"tags": ("theirs",)},
    {"tasks": ("other",)},
    {"tasks": ("other", "echo")},
    {"statuses": (SessionStatus.ACTIVE,)},
    {"statuses": (SessionStatus.CLOSED,)},
    {"statuses": (SessionStatus.EXPIRED,)},
    {"statuses": (SessionStatus.EXPIRED, SessionStatus.CLOSED)},
    {"statuses": tuple(SessionStatus)},
    {"external_id": ExternalId("mine")},
    {"external_id": ExternalId("MINE")},
    {"created_from": START + SECOND},
    {"created_from": START + SECOND + timedelta(microseconds=1)},
    {"created_to": START + SECOND},
    {"created_to": START + SECOND - timedelta(microseconds=1)},
    {"created_from": START + SECOND, "created_to": START + 3 * SECOND},
    {"created_from": START + 3 * SECOND, "created_to": START + SECOND},
    {"types": ("chat",), "tags": ("b",), "tasks": ("other",)},
    {"tags": ("a", "b"), "statuses": (SessionStatus.ACTIVE,)},
    {"tags": ("a",), "statuses": (SessionStatus.EXPIRED,), "created_from": START + 2 * SECOND},
    {"tasks": ("other",), "external_id": ExternalId("mine")},
]


async def populate(store: SessionStore, clock: ManualClock) -> list[Session]:
    """Store the population and return it as it is stored, newest first."""
    await fill(store, POPULATION)
    clock.moment = NOW
    for session_id in CLOSED_ONES:
        await store.close(ENV_A.id, SessionId(session_id), None)
    found = [await store.find(session.environment.id, session.id) for session in POPULATION]
    stored = [session for session in found if session is not None]
    return sorted(stored, key=lambda session: (session.created_at, session.id), reverse=True)


@pytest.mark.parametrize("members", FILTERS, ids=str)
async def test_exactly_what_the_filter_admits_is_selected_and_counted(
    session_index: SessionIndex, indexed_store: SessionStore, clock: ManualClock, members: dict[str, Any]
) -> None:
    stored = await populate(indexed_store, clock)
    wanted = SessionFilter(environment_id=ENV_A.id, **members)
    expected = [session.id for session in stored if wanted.admits(session, NOW)]
    assert ids_of(await session_index.select(ENV_A, wanted, PageRequest(size=50))) == expected
    assert await session_index.count(ENV_A, wanted) == len(expected)
    walked = await walk(session_index, wanted, 2, Direction.AFTER)
    assert [session_id for page in walked for session_id in page] == expected


async def test_a_filter_follows_what_happens_to_a_session(
    session_index: SessionIndex, indexed_store: SessionStore, clock: ManualClock
) -> None:
    session = make_session(tags=("old",), expires_at=START + SECOND)
    await fill(indexed_store, [session])

    async def has(**members: Any) -> bool:
        return await session_index.count(ENV_A, SessionFilter(environment_id=ENV_A.id, **members)) == 1

    await indexed_store.update(ENV_A.id, session.id, SessionUpdate(tags=("new",)))
    assert (await has(tags=("new",)), await has(tags=("old",))) == (True, False)
    assert await has(statuses=(SessionStatus.ACTIVE,))
    clock.advance(SECOND)
    assert await has(statuses=(SessionStatus.EXPIRED,))
    await indexed_store.close(ENV_A.id, session.id, None)
    assert (await has(statuses=(SessionStatus.CLOSED,)), await has(statuses=(SessionStatus.EXPIRED,))) == (True, False)


async def test_another_environment_has_nothing_of_it(
    session_index: SessionIndex, indexed_store: SessionStore, clock: ManualClock
) -> None:
    await populate(indexed_store, clock)
    theirs = SessionFilter(environment_id=ENV_B.id)
    assert ids_of(await session_index.select(ENV_B, theirs, PageRequest())) == ["session_theirs"]
    assert await session_index.count(ENV_B, theirs) == 1
    assert await session_index.list_tags(ENV_B) == ["a", "theirs"]


# --- tags ---


@pytest.fixture
async def tagged(indexed_store: SessionStore) -> None:
    tags = [("b", "a"), ("B", "a_b", "a%b"), ("b", "äpfel", "ÄPFEL", "\U0001f980"), ("\uffff",)]
    await fill(indexed_store, [make_session(f"{n}", tags=some) for n, some in enumerate(tags)])
    await fill(indexed_store, [make_session("b", environment=ENV_B, tags=("theirs",))])


async def test_tags_are_distinct_and_in_byte_order(session_index: SessionIndex, tagged: None) -> None:
    everything = ["B", "a", "a%b", "a_b", "b", "ÄPFEL", "äpfel", "\uffff", "\U0001f980"]
    assert await session_index.list_tags(ENV_A) == everything
    assert await session_index.list_tags(ENV_A, limit=3) == everything[:3]


@pytest.mark.parametrize(
    ("containing", "expected"),
    [
        ("b", ["B", "a%b", "a_b", "b"]),
        ("B", ["B", "a%b", "a_b", "b"]),
        ("_", ["a_b"]),
        ("%", ["a%b"]),
        ("\\", []),
        ("äp", ["ÄPFEL", "äpfel"]),
        ("ÄP", ["ÄPFEL", "äpfel"]),
        ("none", []),
        ("theirs", []),
    ],
)
async def test_tags_are_searched_whatever_the_case_and_letter_by_letter(
    session_index: SessionIndex, tagged: None, containing: str, expected: list[str]
) -> None:
    assert await session_index.list_tags(ENV_A, containing=containing) == expected


@pytest.mark.parametrize("environment", [ENV_A, ENV_B], ids=lambda environment: environment.id)
async def test_tags_of_sessions_that_are_over_are_listed_too(
    session_index: SessionIndex, indexed_store: SessionStore, environment: Environment
) -> None:
    session = make_session(environment=environment, tags=("kept",))
    await fill(indexed_store, [session])
    await indexed_store.close(environment.id, session.id, None)
    assert await session_index.list_tags(environment) == ["kept"]


async def test_a_tag_that_was_taken_away_is_not_listed(
    session_index: SessionIndex, indexed_store: SessionStore
) -> None:
    session = make_session(tags=("old", "kept"))
    await fill(indexed_store, [session])
    await indexed_store.update(ENV_A.id, session.id, SessionUpdate(tags=("kept", "new")))
    assert await session_index.list_tags(ENV_A) == ["kept", "new"]
