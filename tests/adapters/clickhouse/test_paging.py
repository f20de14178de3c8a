"""Pages of tables that are larger than one look, with many versions of each row: complete, and without looking at everything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import attrs
import pytest

from contract.makers import ENV_A, ENV_B, START, make_session
from sessions_adapters.clickhouse import ClickHouseDatabase, ClickHouseIndexWriter, ClickHouseSessionIndex
from sessions_adapters.clickhouse.selection import LOOKS, NEARBY
from sessions_core.domain.ids import ExternalId, SessionId
from sessions_core.domain.pagination import Direction, IndexEntry, PageRequest, SessionFilter
from sessions_core.domain.session import Session
from sessions_core.ports.session_index import IndexRow
from sessions_core.testing import ManualClock

pytestmark = pytest.mark.needs_clickhouse

COUNT = 6000
ALL = SessionFilter(environment_id=ENV_A.id)


@attrs.define(eq=False)
class CountingDatabase(ClickHouseDatabase):
    """Remembers how far each statement has looked.

    Attributes:
        looks: Largest numbers of stored versions that were looked at; 0 stands for all.
    """

    looks: list[int] = attrs.field(init=False, factory=list)

    async def query(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        self.looks.append(parameters.get("look", 0))
        return await super().query(statement, parameters)


@pytest.fixture
def sessions() -> list[Session]:
    """Sessions newest first; three share each moment, one in 600 is rare."""
    return [
        make_session(
            f"{COUNT - n:05}",
            at=START + (COUNT - n) // 3 * timedelta(minutes=10),
            type="rare" if n % 600 == 599 else "plain",
            tags=("once",),
        )
        for n in range(COUNT)
    ]


@pytest.fixture
async def counting(database: ClickHouseDatabase, writer: ClickHouseIndexWriter, sessions: list[Session]) -> Any:
    """Every session has three versions, in batches that mix old and new; the last ten are deleted."""
    for version in (1, 3, 2):
        tags = ("once",) if version == 1 else ("later",)
        rows = [IndexRow(attrs.evolve(session, tags=tags), version) for session in sessions]
        await writer.write(rows[::2])
        await writer.write(rows[1::2])
    await writer.write([IndexRow(session, 4, is_deleted=True) for session in sessions[:10]])
    await writer.write([IndexRow(attrs.evolve(make_session("theirs"), environment=ENV_B), 1)])
    counting = CountingDatabase(database._make_client, timeout=database.timeout)
    yield counting
    await counting.aclose()


@pytest.fixture
def counted_index(counting: CountingDatabase) -> ClickHouseSessionIndex:
    return ClickHouseSessionIndex(counting, ManualClock())


def ids_of(items: Sequence[Session | IndexEntry]) -> list[SessionId]:
    return [item.id for item in items]


async def walk(
    index: ClickHouseSessionIndex, wanted: SessionFilter, direction: Direction, size: int = 100
) -> list[SessionId]:
    """Return all ids in the order of *direction*, page by page."""
    found: list[IndexEntry] = []
    while True:
        cursor = found[-1].cursor if found else None
        page = await index.select(ENV_A, wanted, PageRequest(size=size, cursor=cursor, direction=direction))
        found.extend(page[:size])
        if len(page) <= size:
            return ids_of(found)


async def test_large_tables_are_paged_completely_and_without_looking_at_everything(
    counted_index: ClickHouseSessionIndex, counting: CountingDatabase, sessions: list[Session]
) -> None:
    there = ids_of(sessions[10:])
    rare = [session.id for session in sessions[10:] if session.type == "rare"]

    assert ids_of(await counted_index.select(ENV_A, ALL, PageRequest(size=50))) == there[:51]
    middle = IndexEntry(sessions[3000].created_at, sessions[3000].id).cursor
    for direction, expected in (
        (Direction.AFTER, ids_of(sessions[3001:3052])),
        (Direction.BEFORE, ids_of(sessions[2949:3000][::-1])),
    ):
        page = await counted_index.select(ENV_A, ALL, PageRequest(size=50, cursor=middle, direction=direction))
        assert ids_of(page) == expected
    assert counting.looks == [LOOKS[0]] * 3, "a page without a filter is found at the first look"

    wanted = attrs.evolve(ALL, types=("rare",))
    assert await walk(counted_index, wanted, Direction.AFTER, 7) == rare
    assert await walk(counted_index, wanted, Direction.BEFORE, 7) == rare[::-1]
    assert set(counting.looks) == {*LOOKS, 0}, "rare ones need further looks"

    assert await walk(counted_index, ALL, Direction.AFTER) == there
    assert await walk(counted_index, ALL, Direction.BEFORE) == there[::-1]
    early = sessions[4000].created_at
    some = attrs.evolve(ALL, created_to=early, created_from=early - timedelta(days=3))
    assert await walk(counted_index, some, Direction.AFTER) == [s.id for s in sessions if some.admits(s, START)]

    assert await counted_index.count(ENV_A, ALL) == COUNT - 10


async def test_a_list_that_was_left_alone_for_long_is_found_at_the_second_look(
    counting: CountingDatabase, sessions: list[Session]
) -> None:
    later = ClickHouseSessionIndex(counting, ManualClock(START + 3 * NEARBY))
    there = ids_of(sessions[10:])
    assert ids_of(await later.select(ENV_A, ALL, PageRequest(size=50))) == there[:51]
    assert counting.looks == [LOOKS[0]] * 2
    oldest = await later.select(ENV_A, ALL, PageRequest(size=50, direction=Direction.BEFORE))
    assert ids_of(oldest) == there[:-52:-1]
    assert counting.looks == [LOOKS[0]] * 3, "nobody knows where it begins, so there is no first look nearby"


async def test_a_skip_index_does_not_bring_old_versions_back(
    counted_index: ClickHouseSessionIndex, counting: CountingDatabase
) -> None:
    """The version that has the tag is in other granules than the newer one that has lost it."""
    lost = attrs.evolve(ALL, tags=("once",))
    assert await counted_index.select(ENV_A, lost, PageRequest(size=5)) == []
    assert counting.looks == [*LOOKS, 0]
    page = await counted_index.select(ENV_A, attrs.evolve(ALL, tags=("later",)), PageRequest(size=5))
    assert len(page) == 6


async def test_an_external_id_is_looked_for_everywhere_at_once(
    counted_index: ClickHouseSessionIndex, counting: CountingDatabase
) -> None:
    assert await counted_index.select(ENV_A, attrs.evolve(ALL, external_id=ExternalId("none")), PageRequest()) == []
    assert counting.looks == [0]
