"""Lists of sessions, from the very rows the store writes: they never lag.

How this works
--------------
A page is read along an index in the order of the page, from the cursor on, until it is full. Without a filter that
costs the same however many sessions there are. A filter by tags reads along each tag's own part of the tag index and
merges what it finds; any other filter is a condition that rows on the way must meet.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

import attrs

from sessions_adapters.sqlite.database import SqliteDatabase, for_owner
from sessions_adapters.sqlite.readers import snapshot
from sessions_adapters.sqlite.values import bindable, from_ms, json_list, to_ms, to_ms_up
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import SessionId
from sessions_core.domain.pagination import Direction, IndexEntry, PageRequest, SessionFilter
from sessions_core.domain.status import SessionStatus
from sessions_core.ports.session_index import SessionIndex

ALL_SESSIONS: Final = "session k"
TAGGED_SESSIONS: Final = "session_tag k cross join session s on s.id = k.id"
"""``k`` is the table whose key gives the order; the cross join makes it the outer one."""

CONDITIONS: Final = {
    "types": "type in (select value from json_each(:types))",
    "tasks": "task in (select value from json_each(:tasks))",
    "external_id": "external_id = :external_id",
    "created_from": "k.created_at >= :created_from",
    "created_to": "k.created_at <= :created_to",
}
STATUS_CONDITIONS: Final = {
    SessionStatus.CLOSED: "closed_at is not null",
    SessionStatus.EXPIRED: "(closed_at is null and expires_at <= :now)",
    SessionStatus.ACTIVE: "(closed_at is null and (expires_at is null or expires_at > :now))",
}
PAST_CURSOR: Final = {
    Direction.AFTER: "(k.created_at, k.id) < (:cursor_time, :cursor_id)",
    Direction.BEFORE: "(k.created_at, k.id) > (:cursor_time, :cursor_id)",
}
ORDER: Final = {
    Direction.AFTER: "order by k.created_at desc, k.id desc",
    Direction.BEFORE: "order by k.created_at, k.id",
}
NEXT_TAG: Final = "select min(tag) from session_tag where environment = ? and tag > ?"


@attrs.define
class SqliteSessionIndex(SessionIndex):
    """Reads the table of sessions."""

    _db: SqliteDatabase = attrs.field(validator=for_owner)

    async def select(self, environment: Environment, wanted: SessionFilter, request: PageRequest) -> list[IndexEntry]:
        if wanted.environment_id != environment.id:
            return []
        query = _Query.of(wanted, self._db.now_ms()).for_page(request)

        def run(connection: sqlite3.Connection) -> list[tuple[int, str]]:
            with snapshot(connection):
                return query.select(connection, request)

        rows = await self._db.read(run)
        return [IndexEntry(from_ms(created_at), SessionId(session_id)) for created_at, session_id in rows]

    async def count(self, environment: Environment, wanted: SessionFilter) -> int:
        if wanted.environment_id != environment.id:
            return 0
        query = _Query.of(wanted, self._db.now_ms())
        return await self._db.read(query.count)

    async def list_tags(self, environment: Environment, *, containing: str = "", limit: int = 100) -> list[str]:
        def run(connection: sqlite3.Connection) -> list[str]:
            part = containing.lower()
            tags = (tag for tag in _tags(connection, environment) if part in tag.lower())
            return [tag for tag, _ in zip(tags, range(limit), strict=False)]

        return await self._db.read(run)


def _tags(connection: sqlite3.Connection, environment: Environment) -> Iterator[str]:
    """Jump from each tag to the next one, without looking at the sessions that have it."""
    tag = ""
    if connection.execute("select 1 from session_tag where environment = ? and tag = ''", (environment.id,)).fetchone():
        yield tag
    while (tag := connection.execute(NEXT_TAG, (environment.id, tag)).fetchone()[0]) is not None:
        yield tag


@attrs.frozen
class _Query:
    """Conditions, which are texts of this module, and the values they are about, which are always bound."""

    conditions: tuple[str, ...]
    values: dict[str, Any]
    tags: tuple[str, ...]

    @classmethod
    def of(cls, wanted: SessionFilter, now: int) -> _Query:
        given = {
            "types": json_list(wanted.types) if wanted.types else None,
            "tasks": json_list(wanted.tasks) if wanted.tasks else None,
            "external_id": None if wanted.external_id is None else bindable(wanted.external_id),
            "created_from": None if wanted.created_from is None else to_ms_up(wanted.created_from),
            "created_to": None if wanted.created_to is None else to_ms(wanted.created_to),
        }
        values = {name: value for name, value in given.items() if value is not None}
        conditions = ["k.environment = :environment", *(CONDITIONS[name] for name in values)]
        if wanted.statuses:
            conditions.append(f"({' or '.join(STATUS_CONDITIONS[status] for status in wanted.statuses)})")
        values |= {"environment": bindable(wanted.environment_id), "now": now}
        return cls(tuple(conditions), values, tuple(sorted(set(wanted.tags))))

    def for_page(self, request: PageRequest) -> _Query:
        """Add where the page begins, and how long it is at most."""
        values = self.values | {"limit": request.size + 1}
        if request.cursor is None:
            return _Query(self.conditions, values, self.tags)
        values |= {"cursor_time": to_ms(request.cursor.created_at), "cursor_id": bindable(request.cursor.id)}
        return _Query((*self.conditions, PAST_CURSOR[request.direction]), values, self.tags)

    def select(self, connection: sqlite3.Connection, request: PageRequest) -> list[tuple[int, str]]:
        """Return the rows of the page and one more, in the order of the request."""
        end = f"{ORDER[request.direction]} limit :limit"
        if not self.tags:
            return self._rows(connection, ALL_SESSIONS, end)
        found = {row for tag in self.tags for row in self._rows(connection, TAGGED_SESSIONS, end, tag)}
        return sorted(found, reverse=request.direction is Direction.AFTER)[: request.size + 1]

    def _rows(self, connection: sqlite3.Connection, source: str, end: str, tag: str = "") -> list[tuple[int, str]]:
        conditions = (*self.conditions, "k.tag = :tag") if self.tags else self.conditions
        statement = f"select k.created_at, k.id from {source} where {' and '.join(conditions)} {end}"  # noqa: S608
        rows = connection.execute(statement, self.values | {"tag": bindable(tag)})
        return [(row["created_at"], row["id"]) for row in rows]

    def count(self, connection: sqlite3.Connection) -> int:
        """Return how many rows there are."""
        source, conditions = ALL_SESSIONS, self.conditions
        if self.tags:
            source = TAGGED_SESSIONS
            conditions = (*conditions, "k.tag in (select value from json_each(:tags))")
        statement = f"select count(distinct k.id) from {source} where {' and '.join(conditions)}"  # noqa: S608
        values = self.values | {"tags": json_list(self.tags)}
        number: int = connection.execute(statement, values).fetchone()[0]
        return number
