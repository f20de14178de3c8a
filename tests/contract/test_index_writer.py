"""What every writer of an index guarantees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contract.makers import ENV_A, SECOND, START, at_once, make_session
from sessions_core.domain.ids import ExternalId, SessionId
from sessions_core.domain.pagination import PageRequest, SessionFilter
from sessions_core.domain.session import Session
from sessions_core.domain.status import SessionStatus
from sessions_core.ports.session_index import IndexRow, IndexWriter, SessionIndex

ALL = SessionFilter(environment_id=ENV_A.id)
VERSIONS = count(1)


async def ids_in(index: SessionIndex, **members: Any) -> list[SessionId]:
    wanted = SessionFilter(environment_id=ENV_A.id, **members)
    found = [entry.id for entry in await index.select(ENV_A, wanted, PageRequest(size=100))]
    assert await index.count(ENV_A, wanted) == len(found)
    return found


async def tag_of(index: SessionIndex) -> list[str]:
    return await index.list_tags(ENV_A)


def versions_of(session: Session, *tags: str) -> list[IndexRow]:
    """Return rows about *session* with the versions 1, 2, …; each has one of *tags*."""
    return [IndexRow(attrs.evolve(session, tags=(tag,)), version) for version, tag in enumerate(tags, start=1)]


async def test_what_was_written_is_found(index_writer: IndexWriter, session_index: SessionIndex) -> None:
    await index_writer.write([IndexRow(make_session("a"), 1), IndexRow(make_session("b"), 1)])
    assert await ids_in(session_index) == ["session_b", "session_a"]


async def test_writing_nothing_is_fine(index_writer: IndexWriter, session_index: SessionIndex) -> None:
    await index_writer.write([])
    assert await ids_in(session_index) == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 2, 0, 1, 2)])
@pytest.mark.parametrize("together", [True, False])
async def test_the_largest_version_stays_whatever_the_order(
    index_writer: IndexWriter, session_index: SessionIndex, order: tuple[int, ...], together: bool
) -> None:
    rows = versions_of(make_session(), "one", "two", "three")
    if together:
        await index_writer.write([rows[number] for number in order])
    else:
        for number in order:
            await index_writer.write([rows[number]])
    assert await tag_of(session_index) == ["three"]
    assert await ids_in(session_index) == ["session_one"]


async def test_writing_the_same_again_changes_nothing(index_writer: IndexWriter, session_index: SessionIndex) -> None:
    rows = versions_of(make_session(), "one", "two")
    for _ in range(3):
        await index_writer.write(rows)
    assert await ids_in(session_index) == ["session_one"]
    assert await tag_of(session_index) == ["two"]


async def test_a_deleted_session_is_not_found(index_writer: IndexWriter, session_index: SessionIndex) -> None:
    rows = versions_of(make_session(), "one", "two")
    await index_writer.write([rows[0]])
    await index_writer.write([attrs.evolve(rows[1], is_deleted=True), IndexRow(make_session("kept"), 1)])
    assert await ids_in(session_index) == ["session_kept"]
    assert await tag_of(session_index) == []
    await index_writer.write([rows[0]])
    assert await ids_in(session_index) == ["session_kept"], "an older version does not bring it back"


async def test_versions_may_be_as_large_as_a_position_in_a_log(
    index_writer: IndexWriter, session_index: SessionIndex
) -> None:
    session, most = make_session(), 2**64 - 1
    await index_writer.write([IndexRow(attrs.evolve(session, tags=("last",)), most)])
    await index_writer.write([IndexRow(attrs.evolve(session, tags=("before",)), most - 1)])
    assert await tag_of(session_index) == ["last"]


@pytest.mark.parametrize("version", [-1, 2**64])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(ValueError, match="version"):
        IndexRow(make_session(), version)


async def test_many_writers_at_once_lose_nothing(index_writer: IndexWriter, session_index: SessionIndex) -> None:
    rows = [versions_of(make_session(f"{number}"), "one", "two") for number in range(10)]
    await at_once([partial(index_writer.write, [row]) for pair in rows for row in reversed(pair)])
    assert len(await ids_in(session_index)) == 10
    assert await tag_of(session_index) == ["two"]


async def test_a_batch_may_be_about_sessions_of_all_ages(
    index_writer: IndexWriter, session_index: SessionIndex
) -> None:
    moments = [datetime(1980 + number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in range(10 * 12)]
    await index_writer.write([IndexRow(make_session(f"{n:03}", at=at), 1) for n, at in enumerate(moments)])
    newest = await session_index.select(ENV_A, ALL, PageRequest(size=3))
    assert [entry.created_at for entry in newest] == moments[:-5:-1]
    assert await session_index.count(ENV_A, ALL) == len(moments)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 1, 1000, tzinfo=UTC),
        datetime(2001, 9, 9, tzinfo=UTC),
        datetime(2200, 1, 1, 0, 0, 0, 999000, tzinfo=UTC),
    ],
    ids=str,
)
async def test_times_are_kept_to_the_millisecond(
    index_writer: IndexWriter, session_index: SessionIndex, moment: datetime
) -> None:
    await index_writer.write([IndexRow(make_session(at=moment), 1)])
    [entry] = await session_index.select(ENV_A, ALL, PageRequest())
    assert entry.created_at == moment
    assert await ids_in(session_index, created_from=moment, created_to=moment) == ["session_one"]
    assert await ids_in(session_index, created_from=moment + timedelta(milliseconds=1)) == []


@pytest.mark.parametrize("expiry", [START + SECOND, datetime(2200, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
async def test_an_expiry_may_be_in_the_far_future(
    index_writer: IndexWriter, session_index: SessionIndex, expiry: datetime
) -> None:
    await index_writer.write([IndexRow(make_session(expires_at=expiry), 1)])
    assert await ids_in(session_index, statuses=(SessionStatus.ACTIVE,)) == ["session_one"]
    assert await ids_in(session_index, statuses=(SessionStatus.EXPIRED,)) == []


# --- whatever a session may hold ---

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)
nasty = st.text(st.sampled_from("\\'\"`{}:,[]\t\n\r%_?#;- \x7f\u2028aé\U0001f980"), min_size=1, max_size=8)
words = texts | nasty
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(nasty | st.sampled_from(["a", "a.b", "b", ""]), inner),
    max_leaves=12,
)
modest = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@modest
@example(metadata={"a.b": 1, "a": {"b": 2}})
@example(metadata={"a": 1, "a.b": {"c": 2}, "a.b.c": "x"})
@example(metadata={"a": [1, "x", {"b": 1}], "b": [[1], "x", None]})
@given(metadata=st.none() | st.dictionaries(nasty | st.sampled_from(["a", "a.b", "b", ""]), values, max_size=4))
async def test_any_metadata_can_be_written(
    index_writer: IndexWriter, session_index: SessionIndex, metadata: dict[str, Any] | None
) -> None:
    await index_writer.write([IndexRow(make_session(metadata=metadata), 1)])
    assert await ids_in(session_index) == ["session_one"]


async def test_metadata_may_be_nested_as_deep_as_a_session_takes_it(
    index_writer: IndexWriter, session_index: SessionIndex
) -> None:
    insides: list[Any] = [{}, [], [[{"a": [1, "x", None, {"b": 1.5}]}]]]
    for inner in insides:
        deep = inner
        for number in range(58):
            deep = {"a": deep} if number % 2 else [deep, 1]
        await index_writer.write([IndexRow(make_session(metadata={"a": deep}), 1)])
    assert await ids_in(session_index) == ["session_one"]


@modest
@given(word=words, other=words)
async def test_a_filter_finds_any_text_and_only_that(
    index_writer: IndexWriter, session_index: SessionIndex, word: str, other: str
) -> None:
    name = SessionId(f"session_{word}")
    session = attrs.evolve(
        make_session(), id=name, type=word, task=word, tags=(word,), external_id=ExternalId(f"x{word}")
    )
    try:
        await index_writer.write([IndexRow(session, next(VERSIONS))])
        await check_that_all_find(session_index, name, types=(other, word), tasks=(word, other), tags=(other, word))
        await check_that_all_find(session_index, name, external_id=ExternalId(f"x{word}"))
        if word != other:
            await check_that_all_find(session_index, None, types=(other,), tasks=(other,), tags=(other,))
            await check_that_all_find(session_index, None, external_id=ExternalId(f"x{other}"))
        assert await session_index.list_tags(ENV_A) == [word]
    finally:
        await index_writer.write([IndexRow(session, next(VERSIONS), is_deleted=True)])


async def check_that_all_find(index: SessionIndex, name: SessionId | None, **members: Any) -> None:
    """Check that each of *members* alone is a filter that finds the session with that name, or nothing."""
    for member, value in members.items():
        assert await ids_in(index, **{member: value}) == ([] if name is None else [name])


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "\x00"])
async def test_text_that_no_session_can_have_finds_nothing(
    index_writer: IndexWriter, session_index: SessionIndex, text: str
) -> None:
    await index_writer.write([IndexRow(make_session(external_id="a", tags=("a",)), 1)])
    assert await ids_in(session_index, types=(text,)) == []
    assert await ids_in(session_index, tags=(text,)) == []
    assert await ids_in(session_index, external_id=ExternalId(text)) == []
    assert await session_index.list_tags(ENV_A, containing=text) == []
