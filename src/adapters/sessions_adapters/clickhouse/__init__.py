"""Lists of sessions from ClickHouse, and the writer that keeps them up to date.

The index lags behind the store by as long as replication takes. It answers with the ids of sessions; what these are now is
asked of the store (:meth:`sessions_core.services.session_service.SessionService.list_sessions`). ClickHouse 25.3 or newer over
HTTP, or its engine in this process (``chdb``) for tests and small tools. Runs on asyncio only.
"""

from __future__ import annotations

from sessions_adapters.clickhouse.config import ClickHouseConfig
from sessions_adapters.clickhouse.database import ClickHouseDatabase, open_database
from sessions_adapters.clickhouse.index_writer import ClickHouseIndexWriter
from sessions_adapters.clickhouse.inspection import ClickHouseFacts, inspect
from sessions_adapters.clickhouse.schema import check_schema, migrate
from sessions_adapters.clickhouse.session_index import ClickHouseSessionIndex

__all__ = [
    "ClickHouseConfig",
    "ClickHouseDatabase",
    "ClickHouseFacts",
    "ClickHouseIndexWriter",
    "ClickHouseSessionIndex",
    "check_schema",
    "inspect",
    "migrate",
    "open_database",
]
