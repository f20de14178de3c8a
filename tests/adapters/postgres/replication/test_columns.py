"""Values of columns: what the feed makes of a text is what the driver returns for the value."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_adapters.postgres.replication.columns import PARSERS, UnreadableValueError, parse, parse_texts

if TYPE_CHECKING:
    import asyncpg

BOOLEAN, BYTES, BIGINT, SMALLINT, INTEGER, TEXT, JSON, TEXTS, MOMENT = 16, 17, 20, 21, 23, 25, 114, 1009, 1184
FORMS = "set timezone = 'UTC'; set datestyle = 'ISO'; set bytea_output = 'hex'"
VALUES = [
    "true::boolean", "false::boolean", r"'\x00ff7f'::bytea", "''::bytea", "9223372036854775807::int8",
    "(-9223372036854775808)::int8", "(-32768)::int2", "2147483647::int4", "'plain'::text", "''::text", "'ü 🎉 \"\\'::text",
    """' {"a" :  1.10, "a": null}'::json""", "'{}'::text[]", """array['a', 'b c', '', null, 'NULL', 'null', 'a"b', 'a\\b', '{x}', 'a,b', ' ', E'\\n']""",
    "'2026-01-02 03:04:05.678+00'::timestamptz", "'2026-01-02 03:04:05.000001+13:45'::timestamptz", "'2026-01-02'::timestamptz",
    "'0001-01-01 00:00:00+00'::timestamptz", "'9999-12-31 23:59:59.999+00'::timestamptz", "'infinity'::timestamptz",
    "'-infinity'::timestamptz",
]  # fmt: skip


@pytest.mark.needs_postgres
async def test_values_are_those_that_the_driver_returns(admin: asyncpg.Connection[asyncpg.Record]) -> None:
    await admin.execute(FORMS)
    for value in VALUES:
        row = await admin.fetchrow(
            f"select {value} as value, {value}::text as text, pg_typeof({value})::oid::int as type"
        )
        assert row is not None
        text = {True: "t", False: "f"}.get(row["value"], row["text"]) if row["type"] == BOOLEAN else row["text"]
        expected = row["value"]
        if isinstance(expected, datetime):
            expected = expected.replace(tzinfo=UTC)  # the driver gives the infinities without one
        assert parse(text, row["type"]) == expected, value


@pytest.mark.needs_postgres
async def test_every_type_of_a_column_of_the_table_is_known(admin: asyncpg.Connection[asyncpg.Record]) -> None:
    types = await admin.fetch(
        "select distinct atttypid::int as type from pg_attribute where attrelid = 'session'::regclass and attnum > 0"
    )
    assert {row["type"] for row in types} <= {*PARSERS, TEXT, JSON}


@pytest.mark.parametrize(
    ("text", "type_number"),
    [
        ("true", BOOLEAN),
        ("", BOOLEAN),
        ("00ff", BYTES),
        ("\\x0g", BYTES),
        ("1.5", BIGINT),
        ("", BIGINT),
        ("today", MOMENT),
        ("10000-01-01 00:00:00+00", MOMENT),
        ("0044-03-15 00:00:00+00 BC", MOMENT),
        ("0001-01-01 00:00:00+05", MOMENT),
        ("", TEXTS),
        ("a", TEXTS),
        ("{", TEXTS),
        ("{a", TEXTS),
        ("{a,}", TEXTS),
        ("{,a}", TEXTS),
        ("{{a}}", TEXTS),
        ('{"a}', TEXTS),
        ('{"a"b}', TEXTS),
        ("[0:1]={a,b}", TEXTS),
    ],
)
def test_what_stands_for_no_value_is_said_to(text: str, type_number: int) -> None:
    with pytest.raises(UnreadableValueError):
        parse(text, type_number)


@given(st.sampled_from(sorted(PARSERS)), st.text(max_size=30))
def test_no_text_does_worse_than_to_be_unreadable(type_number: int, text: str) -> None:
    with suppress(UnreadableValueError):
        parse(text, type_number)


@given(st.lists(st.none() | st.text(max_size=8), max_size=6))
def test_arrays_come_back_as_they_were(items: list[str | None]) -> None:
    def quoted(item: str | None) -> str:
        return "NULL" if item is None else '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert parse_texts("{" + ",".join(map(quoted, items)) + "}") == items


def test_moments_are_in_utc() -> None:
    moment: Any = parse("2026-01-02 03:04:05.5+02", MOMENT)
    assert moment == datetime(2026, 1, 2, 1, 4, 5, 500_000, tzinfo=UTC)
    assert moment.tzinfo is UTC
