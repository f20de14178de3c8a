"""What lies in the table: the columns and values that the contract names, for whoever asks ClickHouse directly."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from contract.makers import START, make_session
from sessions_adapters.clickhouse import ClickHouseDatabase, ClickHouseIndexWriter
from sessions_core.ports.session_index import IndexRow

pytestmark = pytest.mark.needs_clickhouse

COLUMNS = (
    "environment_id, organization_id, project_id, session_id, environment_type, friendly_id, external_id, type,"
    " task_identifier, tags, toString(metadata), toString(closed_at), closed_reason, toString(expires_at),"
    " toString(created_at), toString(updated_at), is_test, _version, _is_deleted"
)


async def stored(database: ClickHouseDatabase) -> tuple[Any, ...]:
    [row] = await database.query(f"SELECT {COLUMNS} FROM sessions_v1", {})
    return row


async def test_a_row_with_nothing_optional(database: ClickHouseDatabase, writer: ClickHouseIndexWriter) -> None:
    """The column of JSON keeps no nulls, so of ``{"data": null}`` nothing is left."""
    await writer.write([IndexRow(make_session(), 7)])
    assert await stored(database) == (
        *("env_a", "org_env_a", "proj_env_a", "session_one", "DEVELOPMENT", "session_one", "", "chat", "echo", []),
        *("{}", None, "", None, "2026-01-01 00:00:00.000", "2026-01-01 00:00:00.000", 0, 7, 0),
    )


async def test_a_row_with_everything(database: ClickHouseDatabase, writer: ClickHouseIndexWriter) -> None:
    session = make_session(
        external_id="mine",
        tags=("b", "a"),
        metadata={"n": 1, "list": [1, "x", {"deep": True}]},
        closed_at=START + timedelta(milliseconds=1),
        closed_reason="done",
        expires_at=START + timedelta(days=1, milliseconds=250),
        updated_at=START + timedelta(seconds=2),
        is_test=True,
    )
    await writer.write([IndexRow(session, 2**63, is_deleted=True)])
    assert await stored(database) == (
        *("env_a", "org_env_a", "proj_env_a", "session_one", "DEVELOPMENT", "session_one", "mine", "chat", "echo"),
        *(["b", "a"], '{"data":{"list":[1,"x",{"deep":true}],"n":1}}', "2026-01-01 00:00:00.001", "done"),
        *("2026-01-02 00:00:00.250", "2026-01-01 00:00:00.000", "2026-01-01 00:00:02.000", 1, 2**63, 1),
    )


async def test_a_mixed_list_stays_a_list(database: ClickHouseDatabase, writer: ClickHouseIndexWriter) -> None:
    """As a tuple of its members' types it would make a new type of nearly every row."""
    await writer.write([IndexRow(make_session(metadata={"list": [1, "x", {"deep": True}]}), 1)])
    [(kind,)] = await database.query("SELECT dynamicType(metadata.data.list) FROM sessions_v1", {})
    assert kind == "Array(Dynamic)"
