"""The change feed, on logical replication: psycopg's connection, and our own decoder of ``pgoutput``. Runs on asyncio only."""

from __future__ import annotations

from sessions_core.errors import MissingExtraError

try:
    import psycopg as _psycopg
except ImportError as exc:
    raise MissingExtraError("Replication from Postgres", "psycopg", "replication") from exc

from sessions_adapters.postgres.replication.config import ReplicationConfig
from sessions_adapters.postgres.replication.feed import PostgresChangeFeed, PostgresChangeStream
from sessions_adapters.postgres.replication.gauge import PostgresFeedGauge
from sessions_adapters.postgres.replication.inspection import ReplicationFacts, inspect
from sessions_adapters.postgres.replication.scan import PostgresSessionScan

__all__ = [
    "PostgresChangeFeed",
    "PostgresChangeStream",
    "PostgresFeedGauge",
    "PostgresSessionScan",
    "ReplicationConfig",
    "ReplicationFacts",
    "inspect",
]

del _psycopg
