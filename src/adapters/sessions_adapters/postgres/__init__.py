"""All ports that a database holds, in Postgres 15 to 18, for any number of processes.

Decisions between processes use the database's clock. Runs on asyncio only.
"""

from __future__ import annotations

from sessions_core.errors import MissingExtraError

try:
    import asyncpg as _asyncpg
except ImportError as exc:
    raise MissingExtraError("A store in Postgres", "asyncpg", "postgres") from exc

from sessions_adapters.postgres.backlog import PostgresBacklog
from sessions_adapters.postgres.channel_log import PostgresChannelLog
from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.database import PostgresDatabase, open_database
from sessions_adapters.postgres.dead_letters import PostgresDeadLetters
from sessions_adapters.postgres.environment_store import PostgresEnvironmentStore, find_sealed_keys
from sessions_adapters.postgres.heartbeats import open_beat
from sessions_adapters.postgres.inspection import PostgresFacts, inspect
from sessions_adapters.postgres.leader_lock import PostgresLeaderLock
from sessions_adapters.postgres.run_store import PostgresRunStore
from sessions_adapters.postgres.schema import migrate
from sessions_adapters.postgres.session_index import PostgresSessionIndex
from sessions_adapters.postgres.session_store import PostgresSessionStore
from sessions_adapters.postgres.token_ledger import PostgresTokenLedger
from sessions_adapters.postgres.wait_registry import PostgresWaitRegistry
from sessions_adapters.postgres.waitpoint_store import PostgresWaitpointStore

__all__ = [
    "PostgresBacklog",
    "PostgresChannelLog",
    "PostgresConfig",
    "PostgresDatabase",
    "PostgresDeadLetters",
    "PostgresEnvironmentStore",
    "PostgresFacts",
    "PostgresLeaderLock",
    "PostgresRunStore",
    "PostgresSessionIndex",
    "PostgresSessionStore",
    "PostgresTokenLedger",
    "PostgresWaitRegistry",
    "PostgresWaitpointStore",
    "find_sealed_keys",
    "inspect",
    "migrate",
    "open_beat",
    "open_database",
]

del _asyncpg
