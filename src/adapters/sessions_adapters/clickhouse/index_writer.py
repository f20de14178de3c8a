"""What replication writes into ClickHouse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import attrs
from clickhouse_connect.driver.client import Client

from sessions_adapters.clickhouse.database import ClickHouseDatabase
from sessions_adapters.clickhouse.values import to_text
from sessions_core.domain.channel import encode_json
from sessions_core.ports.session_index import IndexRow, IndexWriter

TABLE: Final = "sessions_v1"
COLUMNS: Final = (
    "environment_id",
    "organization_id",
    "project_id",
    "session_id",
    "environment_type",
    "friendly_id",
    "external_id",
    "type",
    "task_identifier",
    "tags",
    "metadata",
    "closed_at",
    "closed_reason",
    "expires_at",
    "created_at",
    "updated_at",
    "is_test",
    "_version",
    "_is_deleted",
)
FORMAT: Final = "JSONCompactEachRow"
SETTINGS: Final = {
    "enable_json_type": 1,
    "input_format_json_infer_array_of_dynamic_from_array_of_different_types": 1,
    "max_partitions_per_insert_block": 0,  # a batch may touch sessions of any age
    "type_json_skip_duplicated_paths": 1,  # {"a.b": 1, "a": {"b": 2}}
}
AT_ONCE: Final = {"async_insert": 0}
GATHERED: Final = {
    "async_insert": 1,
    "wait_for_async_insert": 1,  # else rows would count as stored that may still get lost
    "async_insert_max_data_size": 1_000_000,
    "async_insert_busy_timeout_ms": 1000,
}


@attrs.define
class ClickHouseIndexWriter(IndexWriter):
    """Adds a version of a session per row; ClickHouse forgets the older ones by itself.

    Attributes:
        is_gathered: Let ClickHouse gather what several writers send, up to a second, and store it together. Either way rows
            are stored when a write returns.
    """

    _database: ClickHouseDatabase
    is_gathered: bool = attrs.field(default=False, kw_only=True)

    async def write(self, rows: Sequence[IndexRow]) -> None:
        if rows:
            settings = SETTINGS | (GATHERED if self.is_gathered else AT_ONCE)
            await self._database.run(partial(_insert, rows, settings))


def _insert(rows: Sequence[IndexRow], settings: dict[str, int], client: Client) -> None:
    """Encode and send. Thousands of rows take a while to encode: on this thread nobody waits for that."""
    lines = [encode_json(_values(row)) for row in sorted(rows, key=_place)]
    client.raw_insert(TABLE, COLUMNS, "\n".join(lines).encode(), settings=dict(settings), fmt=FORMAT)


def _place(row: IndexRow) -> tuple[Any, ...]:
    """Return where in the table the row belongs."""
    session, environment = row.session, row.session.environment
    return (environment.organization_id, environment.project_id, environment.id, session.created_at, session.id)


def _values(row: IndexRow) -> tuple[Any, ...]:
    """Return one value for each of the columns."""
    session, environment = row.session, row.session.environment
    return (
        environment.id,
        environment.organization_id,
        environment.project_id,
        session.id,
        environment.type.value,
        session.id,
        session.external_id or "",
        session.type,
        session.task,
        session.tags,
        {"data": session.metadata},
        _maybe(session.closed_at),
        session.closed_reason or "",
        _maybe(session.expires_at),
        to_text(session.created_at),
        to_text(session.updated_at),
        int(session.is_test),
        row.version,
        int(row.is_deleted),
    )


def _maybe(moment: datetime | None) -> str | None:
    return None if moment is None else to_text(moment)
