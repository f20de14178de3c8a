"""Reading and writing the values of bodies, headers and queries."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.channel import DEEPEST
from sessions_core.errors import InvalidError
from sessions_server.problems import UnreadableBodyError
from sessions_server.wire.values import (
    Wire,
    check_text,
    decode_body,
    is_deeper,
    iso,
    parse_digits,
    parse_moment,
    parse_whole,
)


class Inner(Wire, frozen=True, kw_only=True):
    some_number: int


class Sample(Wire, frozen=True, kw_only=True):
    name: str
    inner: Inner | msgspec.UnsetType = msgspec.UNSET
    items: list[Inner] | msgspec.UnsetType = msgspec.UNSET


DECODER = msgspec.json.Decoder(Sample)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"", "name"),
        (b"{}", "name"),
        (b'{"name":1}', "name"),
        (b'{"name":"x","inner":{}}', "inner.someNumber"),
        (b'{"name":"x","inner":{"someNumber":"1"}}', "inner.someNumber"),
        (b'{"name":"x","items":[{"someNumber":1},{"someNumber":null}]}', "items[1].someNumber"),
        (b"[]", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
    ],
)
def test_a_wrong_body_names_the_path(raw: bytes, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        decode_body(raw, DECODER)
    assert caught.value.field == field


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(raw: bytes) -> None:
    with suppress(InvalidError):
        decode_body(raw, DECODER)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_no_json_makes_it_fail_otherwise(value: Any) -> None:
    with pytest.raises(InvalidError):
        decode_body(msgspec.json.encode([value]), DECODER)


def depth_of(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(depth_of, items), default=0)


@given(
    st.recursive(
        st.none() | st.text('[]{}"\\', max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("[]{}"), inner),
    ),
    st.integers(0, 6),
)
def test_the_depth_of_json_is_told_without_reading_it(value: Any, most: int) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=1)):
        assert is_deeper(text, most) == (depth_of(value) > most)


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 500_000 + "[" * 600,
        '"' * 999_999 + "[" * 600,
        '"' + "\\" * 999_999 + "[" * 600,
        "[]" * 500_000,
        '"[' * 500_000,
    ],
    ids=lambda text: text[:6],
)
def test_telling_the_depth_takes_no_longer_than_reading(text: str) -> None:
    is_deeper(text, 500)  # a moment; with steps that grow with the square it would take hours


@pytest.mark.parametrize("depth", [1, 10, DEEPEST - 2])
def test_a_body_may_be_nested_so_deep_and_no_deeper(depth: int) -> None:
    members = '{"name":"x","more":' + "[" * depth + "]" * depth + "}"
    assert decode_body(members.encode(), DECODER).name == "x"
    with pytest.raises(UnreadableBodyError, match="deeper"):
        decode_body(members.replace("[", "[" * DEEPEST).encode(), DECODER)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_written_with_milliseconds_and_read_again(moment: datetime) -> None:
    text = iso(moment)
    assert text.endswith("Z")
    assert abs(parse_moment(text, name="x") - moment) < timedelta(milliseconds=1)


def test_a_time_in_another_zone_is_written_in_utc() -> None:
    assert iso(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31T22:00:00.000Z"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678Z", datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)),
        ("2026-01-02T03:04:05+01:00", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1500, datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=UTC)),
    ],
)
def test_a_time_may_be_text_or_milliseconds(value: str | int, expected: datetime) -> None:
    assert parse_moment(value, name="x") == expected


@given(st.floats() | st.integers() | st.text(max_size=40))
def test_nothing_else_is_a_time(value: float | str) -> None:
    with suppress(InvalidError):
        assert parse_moment(value, name="x").tzinfo is UTC


@pytest.mark.parametrize("text", ["", "-1", "1.0", "+1", " 1", "1_0", "٣", "²", "1" * 5000, "11", "0x1"])
def test_digits_are_ascii_and_in_range(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_digits(text, "x", 0, 10)


@given(st.integers(0, 10))
def test_digits_in_range_are_read(number: int) -> None:
    assert parse_digits(str(number), "x", 0, 10) == number


@pytest.mark.parametrize("number", [1.5, 1e300, -1e300, float("inf")])
def test_a_whole_number_has_no_fraction(number: float) -> None:
    with pytest.raises(InvalidError):
        parse_whole(number, "x")
    assert parse_whole(3.0, "x") == 3


@pytest.mark.parametrize("text", ["", "x" * 6, "a\x00", "\udcff"])
def test_a_text_is_as_long_as_it_may_be_and_can_be_stored(text: str) -> None:
    with pytest.raises(InvalidError):
        check_text(text, "x", 5)
    assert check_text("ab😀", "x", 5) == "ab😀"
