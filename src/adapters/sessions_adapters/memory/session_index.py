"""Lists of sessions, from memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import attrs
from anyio.lowlevel import checkpoint

from sessions_adapters.memory.tables import Tables
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import SessionId
from sessions_core.domain.pagination import Cursor, Direction, IndexEntry, PageRequest, SessionFilter
from sessions_core.domain.session import Session
from sessions_core.ports.session_index import SessionIndex


@attrs.define(eq=False)
class InMemorySessionIndex(SessionIndex):
    """Looks through all sessions of :class:`Tables`, so it never lags."""

    _tables: Tables

    async def select(self, environment: Environment, wanted: SessionFilter, request: PageRequest) -> list[IndexEntry]:
        await checkpoint()
        entries = [IndexEntry(session.created_at, session.id) for session in self._wanted(environment, wanted)]
        backwards = request.direction is Direction.BEFORE
        entries.sort(key=_position, reverse=not backwards)
        return [entry for entry in entries if _is_past(entry, request.cursor, backwards)][: request.size + 1]

    async def count(self, environment: Environment, wanted: SessionFilter) -> int:
        await checkpoint()
        return sum(1 for _ in self._wanted(environment, wanted))

    async def list_tags(self, environment: Environment, *, containing: str = "", limit: int = 100) -> list[str]:
        await checkpoint()
        tags = {tag for session in self._of(environment) for tag in session.tags}
        return sorted(tag for tag in tags if containing.lower() in tag.lower())[:limit]

    def _of(self, environment: Environment) -> Iterator[Session]:
        return (session for session in self._tables.sessions.values() if session.environment.id == environment.id)

    def _wanted(self, environment: Environment, wanted: SessionFilter) -> Iterator[Session]:
        now = self._tables.now()
        return (session for session in self._of(environment) if wanted.admits(session, now))


def _position(row: IndexEntry | Cursor) -> tuple[datetime, SessionId]:
    return (row.created_at, row.id)


def _is_past(entry: IndexEntry, cursor: Cursor | None, backwards: bool) -> bool:
    if cursor is None:
        return True
    return _position(entry) > _position(cursor) if backwards else _position(entry) < _position(cursor)
