"""Query strings."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.pagination import SessionFilter
from sessions_core.errors import InvalidError
from sessions_core.testing import ManualClock
from sessions_server import parameters
from sessions_server.queries import parse_list, parse_query, parse_records, parse_runs
from sessions_server.route import Context

CLOCK = ManualClock()
ENVIRONMENT = EnvironmentId("env_1")


@attrs.frozen
class Clocked:
    clock: ManualClock = CLOCK


@attrs.frozen
class FakeContext:
    """As much of the context as reading a query needs: the time."""

    sessions: Clocked = Clocked()


CONTEXT = cast("Context", FakeContext())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a=1&a=2", {"a": "2"}),
        ("a[b]=1", {"a[b]": "1"}),
        ("a%5Bb%5D=x%2Cy", {"a[b]": "x,y"}),
        ("a=x+y", {"a": "x y"}),
        ("a=", {"a": ""}),
        ("a", {"a": ""}),
        ("a=%C3%A9", {"a": "é"}),
    ],
)
def test_a_query_is_a_flat_map_of_texts(text: str, expected: dict[str, str]) -> None:
    assert parse_query(text) == expected


@given(st.text(alphabet="ab=&%0cCfF[]+é\udcff", max_size=40))
def test_no_query_fails_otherwise_than_as_invalid(text: str) -> None:
    with suppress(InvalidError):
        for name, value in parse_query(text).items():
            assert "\x00" not in value
            assert f"{name}={value}".encode()


@given(
    st.dictionaries(
        st.sampled_from([each.name for each in (*parameters.LIST, *parameters.RECORDS, *parameters.RUNS)]),
        st.text()
        | st.integers(-(2**70), 2**70).map(str)
        | st.datetimes().map(str)
        | st.sampled_from(["9" * 5000, "1w" * 90]),
    )
)
def test_no_list_query_fails_otherwise_than_as_invalid(query: dict[str, str]) -> None:
    readers: list[Any] = [parse_list, parse_records, parse_runs]
    for read in readers:
        with suppress(InvalidError):
            read(query, CONTEXT)


def test_nothing_asks_for_the_first_page_of_everything() -> None:
    found = parse_list({}, CONTEXT)
    assert (found.page.size, found.page.cursor) == (20, None)
    assert found.to_filter(ENVIRONMENT) == SessionFilter(environment_id=ENVIRONMENT)


@pytest.mark.parametrize(
    ("period", "back"),
    [
        ("1d", timedelta(days=1)),
        ("1h30m", timedelta(minutes=90)),
        ("1500", timedelta(seconds=1.5)),
        ("9" * 60, timedelta(days=36500)),
        ("nonsense", None),
        ("", None),
    ],
)
def test_a_period_ends_now(period: str, back: timedelta | None) -> None:
    found = parse_list({"filter[createdAt][period]": period}, CONTEXT)
    assert found.created_from == (None if back is None else CLOCK.now() - back)


def test_period_and_from_both_hold() -> None:
    later = CLOCK.now() - timedelta(hours=1)
    query = {"filter[createdAt][period]": "1d", "filter[createdAt][from]": later.isoformat()}
    assert parse_list(query, CONTEXT).created_from == later


@pytest.mark.parametrize("value", ["a,b", ",a,,b,"])
def test_lists_are_split_at_commas(value: str) -> None:
    assert parse_list({"filter[tags]": value}, CONTEXT).tags == ("a", "b")


def test_records_begin_after_the_named_one() -> None:
    assert parse_records({}, CONTEXT).start == 0
    found: Any = parse_records({"afterEventId": "0", "limit": "7"}, CONTEXT)
    assert (found.start, found.limit) == (1, 7)
