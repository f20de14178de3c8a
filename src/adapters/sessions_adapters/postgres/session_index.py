"""Lists of sessions, from the very rows the store writes: they never lag.

How this works
--------------
A page is read along an index in the order of the page, from the cursor on, until it is full. Without a filter that
costs the same however many sessions there are. A filter by tags reads along each tag's own part of the tag index and
merges what it finds; any other filter is a condition that rows on the way must meet.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import attrs

from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.values import bindable
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import SessionId
from sessions_core.domain.pagination import Direction, IndexEntry, PageRequest, SessionFilter
from sessions_core.domain.status import SessionStatus
from sessions_core.ports.session_index import SessionIndex

ALL_SESSIONS: Final = "session k"
TAGGED_SESSIONS: Final = """
    unnest({tags}::text[]) as wanted (tag) cross join lateral (
        select k.created_at, k.id from session_tag k join session s on s.id = k.id
        where k.tag = wanted.tag and {conditions} {end}
    ) as k
"""
CONDITIONS: Final = {
    "types": "type = any({}::text[])",
    "tasks": "task_identifier = any({}::text[])",
    "external_id": "external_id = {}",
    "created_from": "k.created_at >= {}",
    "created_to": "k.created_at <= {}",
}
STATUS_CONDITIONS: Final = {
    SessionStatus.CLOSED: "closed_at is not null",
    SessionStatus.EXPIRED: "(closed_at is null and expires_at <= now_or({0}))",
    SessionStatus.ACTIVE: "(closed_at is null and (expires_at is null or expires_at > now_or({0})))",
}
PAST_CURSOR: Final = {
    Direction.AFTER: "(k.created_at, k.id) < ({}, {})",
    Direction.BEFORE: "(k.created_at, k.id) > ({}, {})",
}
ORDER: Final = {
    Direction.AFTER: "order by k.created_at desc, k.id desc",
    Direction.BEFORE: "order by k.created_at, k.id",
}
# Jump from each tag to the next one, without looking at the sessions that have it.
LIST_TAGS: Final = """
    with recursive found (tag) as (
        (select tag from session_tag where environment_id = $1 order by tag limit 1)
        union all
        select (select tag from session_tag where environment_id = $1 and tag > found.tag order by tag limit 1)
        from found where found.tag is not null
    )
    select tag from found where tag is not null
"""


@attrs.define
class PostgresSessionIndex(SessionIndex):
    """Reads the table of sessions. Needs the part ``lists`` of the schema."""

    _db: PostgresDatabase

    async def select(self, environment: Environment, wanted: SessionFilter, request: PageRequest) -> list[IndexEntry]:
        if wanted.environment_id != environment.id:
            return []
        query = _Query()
        query.admit(wanted, self._db.at())
        rows = await self._db.fetch(query.page(wanted, request), *query.values)
        return [IndexEntry(row["created_at"], SessionId(row["id"])) for row in rows]

    async def count(self, environment: Environment, wanted: SessionFilter) -> int:
        if wanted.environment_id != environment.id:
            return 0
        query = _Query()
        query.admit(wanted, self._db.at())
        row = await self._db.fetchrow(query.count(wanted), *query.values)
        return 0 if row is None else int(row["count"])

    async def list_tags(self, environment: Environment, *, containing: str = "", limit: int = 100) -> list[str]:
        part = containing.lower()
        # Compared here: which letters are the same but for their case depends on the database's locale.
        rows = await self._db.fetch(LIST_TAGS, bindable(environment.id))
        return [row["tag"] for row in rows if part in row["tag"].lower()][:limit]


@attrs.define
class _Query:
    """Conditions, which are texts of this module, and the values they are about, which are always bound."""

    conditions: list[str] = attrs.field(factory=list)
    values: list[Any] = attrs.field(factory=list)

    def bind(self, value: Any) -> str:
        """Return the parameter that stands for *value*."""
        self.values.append(value)
        return f"${len(self.values)}"

    def admit(self, wanted: SessionFilter, now: datetime | None) -> None:
        """Add the conditions of *wanted*, but for the tags."""
        self.conditions.append(f"k.environment_id = {self.bind(bindable(wanted.environment_id))}")
        given = {
            "types": _bindables(wanted.types),
            "tasks": _bindables(wanted.tasks),
            "external_id": wanted.external_id,
            "created_from": wanted.created_from,
            "created_to": wanted.created_to,
        }
        for name, value in given.items():
            if value is not None:
                bound = bindable(value) if isinstance(value, str) else value
                self.conditions.append(CONDITIONS[name].format(self.bind(bound)))
        if wanted.statuses:
            alternatives = " or ".join(STATUS_CONDITIONS[status] for status in wanted.statuses)
            moment = f"{self.bind(now)}::timestamptz" if "{0}" in alternatives else ""
            self.conditions.append(f"({alternatives.format(moment)})")

    def page(self, wanted: SessionFilter, request: PageRequest) -> str:
        """Return the statement for a page and one more row, in the order of the request."""
        if request.cursor is not None:
            cursor = (self.bind(request.cursor.created_at), self.bind(bindable(request.cursor.id)))
            self.conditions.append(PAST_CURSOR[request.direction].format(*cursor))
        end = f"{ORDER[request.direction]} limit {self.bind(request.size + 1)}"
        if not wanted.tags:
            return f"select k.created_at, k.id from {ALL_SESSIONS} where {self._all} {end}"  # noqa: S608 - constants
        tagged = TAGGED_SESSIONS.format(tags=self.bind(_bindables(wanted.tags)), conditions=self._all, end=end)
        return f"select distinct k.created_at, k.id from {tagged} {end}"  # noqa: S608 - constants

    def count(self, wanted: SessionFilter) -> str:
        """Return the statement that counts."""
        if wanted.tags:
            self.conditions.append(f"tags && {self.bind(_bindables(wanted.tags))}::text[]")
        return f"select count(*) from {ALL_SESSIONS} where {self._all}"  # noqa: S608 - constants

    @property
    def _all(self) -> str:
        return " and ".join(self.conditions)


def _bindables(texts: tuple[str, ...]) -> list[str | None] | None:
    return [bindable(text) for text in texts] if texts else None
