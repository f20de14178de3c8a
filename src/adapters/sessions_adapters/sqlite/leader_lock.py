"""Leadership in SQLite."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import anyio
import attrs

from sessions_adapters.sqlite.database import SqliteDatabase, for_owner
from sessions_core.ports.leader_lock import LeaderLock


@attrs.define
class SqliteLeaderLock(LeaderLock):
    """A lock per name, inside the process.

    That is enough: one process owns the data, and the lock on the file keeps every other one out. Leadership is lost
    when the database is closed or its writer dies; the holder's scope is cancelled at that moment.
    """

    _db: SqliteDatabase = attrs.field(validator=for_owner)

    def hold(self, name: str) -> AbstractAsyncContextManager[anyio.CancelScope]:
        return self._db.leaders.hold(name)
