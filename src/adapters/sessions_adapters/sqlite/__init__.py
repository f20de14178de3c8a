"""All that a single process needs, durable in one SQLite file.

One process owns the data. A single thread writes, and everything that arrives while it waits for the disk shares the
next commit; a few threads read beside it. Needs nothing but Python's own ``sqlite3`` (SQLite 3.40 or newer) on a
POSIX system, and runs on asyncio only. There is no registry of waits here: the owner's memory is the place for it.
"""

from __future__ import annotations

from sessions_adapters.sqlite.backlog import SqliteBacklog
from sessions_adapters.sqlite.channel_log import SqliteChannelLog
from sessions_adapters.sqlite.config import SqliteConfig
from sessions_adapters.sqlite.database import SqliteDatabase, open_database
from sessions_adapters.sqlite.environment_store import SqliteEnvironmentStore, SqliteTokenLedger, find_sealed_keys
from sessions_adapters.sqlite.leader_lock import SqliteLeaderLock
from sessions_adapters.sqlite.run_store import SqliteRunStore
from sessions_adapters.sqlite.session_index import SqliteSessionIndex
from sessions_adapters.sqlite.session_store import SqliteSessionStore
from sessions_adapters.sqlite.waitpoint_store import SqliteWaitpointStore

__all__ = [
    "SqliteBacklog",
    "SqliteChannelLog",
    "SqliteConfig",
    "SqliteDatabase",
    "SqliteEnvironmentStore",
    "SqliteLeaderLock",
    "SqliteRunStore",
    "SqliteSessionIndex",
    "SqliteSessionStore",
    "SqliteTokenLedger",
    "SqliteWaitpointStore",
    "find_sealed_keys",
    "open_database",
]
