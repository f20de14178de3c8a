"""Statements that find sessions. Their texts are constants; what a caller gives travels beside them as parameters.

How this works
--------------
A row's versions are merged while they are read (``FINAL``), which costs as much as all the rows that must be looked at.
ClickHouse does not see how few an ordered page needs. But a session never changes its ``created_at``, so merging only
the rows between two times gives the right rows between them. Therefore the same statement first looks for the time up to
which a number of stored versions lie (cheap: that is the order of the table), and merges no further. If that does not
fill the page, and there was more to look at, the next statement looks further, and the last one at everything.

Each part of the table that is read at all costs half a millisecond, and an old table has parts for every month. Most pages are
full within weeks from where they begin. So the very first statement looks no further than that, at two months' parts at most.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from sessions_adapters.clickhouse.values import FIRST, LAST, sendable, to_ms, to_ms_up
from sessions_core.domain.environment import Environment
from sessions_core.domain.pagination import Cursor, Direction, PageRequest, SessionFilter
from sessions_core.domain.status import SessionStatus

LOOKS: Final = (256, 4096)
"""How many stored versions are looked at first, and then; after that all of them."""
NEARBY: Final = timedelta(days=31)
"""How far from the beginning of a page the first look goes; a part of the table holds a month."""

SCOPE: Final = (
    "organization_id = {organization:String}",
    "project_id = {project:String}",
    "environment_id = {environment:String}",
)
FROM: Final = "created_at >= fromUnixTimestamp64Milli({created_from:Int64}, 'UTC')"
TO: Final = "created_at <= fromUnixTimestamp64Milli({created_to:Int64}, 'UTC')"
CONDITIONS: Final = {
    "types": "type IN {types:Array(String)}",
    "tags": "hasAny(tags, {tags:Array(String)})",
    "tasks": "task_identifier IN {tasks:Array(String)}",
    "external_id": "external_id = {external_id:String}",
}
NOW: Final = "fromUnixTimestamp64Milli({now:Int64}, 'UTC')"
STATUSES: Final = {
    SessionStatus.CLOSED: "closed_at IS NOT NULL",
    SessionStatus.EXPIRED: f"(closed_at IS NULL AND expires_at IS NOT NULL AND expires_at <= {NOW})",
    SessionStatus.ACTIVE: f"(closed_at IS NULL AND (expires_at IS NULL OR expires_at > {NOW}))",
}
CURSOR: Final = "fromUnixTimestamp64Milli({cursor_time:Int64}, 'UTC')"
CURSOR_LIMITS: Final = {Direction.AFTER: f"created_at <= {CURSOR}", Direction.BEFORE: f"created_at >= {CURSOR}"}
"""Says what the comparison of tuples implies; ClickHouse does not find a range of its key in that one."""
LIMIT: Final = "fromUnixTimestamp64Milli({limit_time:Int64}, 'UTC')"
WITHIN_LIMIT: Final = {Direction.AFTER: f"created_at >= {LIMIT}", Direction.BEFORE: f"created_at <= {LIMIT}"}
PAST_CURSOR: Final = {
    Direction.AFTER: f"(created_at, session_id) < ({CURSOR}, {{cursor_id:String}})",
    Direction.BEFORE: f"(created_at, session_id) > ({CURSOR}, {{cursor_id:String}})",
}
ORDER: Final = {
    Direction.AFTER: "ORDER BY created_at DESC, session_id DESC",
    Direction.BEFORE: "ORDER BY created_at, session_id",
}
EDGE: Final = {Direction.AFTER: "min", Direction.BEFORE: "max"}
WITHIN_LOOK: Final = {Direction.AFTER: "created_at >= look.1", Direction.BEFORE: "created_at <= look.1"}


@attrs.frozen
class Selection:
    """Which rows are wanted.

    Attributes:
        place: Conditions on columns of a row that never change, which are also the table's key.
        rows: Conditions on what a row says now.
        parameters: What the conditions name.
    """

    place: tuple[str, ...]
    rows: tuple[str, ...]
    parameters: dict[str, Any]

    @classmethod
    def of(cls, environment: Environment, wanted: SessionFilter, now_ms: int) -> Selection:
        """Return what *wanted* admits."""
        place, parameters = list(SCOPE), _scope(environment)
        if wanted.created_from is not None:
            place.append(FROM)
            parameters["created_from"] = to_ms_up(wanted.created_from)
        if wanted.created_to is not None:
            place.append(TO)
            parameters["created_to"] = to_ms(wanted.created_to)
        values = _values(wanted)
        rows = [CONDITIONS[name] for name in values]
        if wanted.statuses:
            rows.append(f"({' OR '.join(STATUSES[status] for status in wanted.statuses)})")
            parameters["now"] = now_ms
        return cls(tuple(place), tuple(rows), parameters | values)

    def beyond(self, cursor: Cursor, direction: Direction) -> Selection:
        """Return the part of it that lies past *cursor*."""
        parameters = {"cursor_time": to_ms(cursor.created_at), "cursor_id": sendable(cursor.id)}
        return Selection(
            (*self.place, CURSOR_LIMITS[direction]),
            (*self.rows, PAST_CURSOR[direction]),
            self.parameters | parameters,
        )

    def until(self, limit: datetime, direction: Direction) -> Selection:
        """Return the part of it that lies no further than *limit*."""
        parameters = self.parameters | {"limit_time": to_ms(limit)}
        return Selection((*self.place, WITHIN_LIMIT[direction]), self.rows, parameters)

    def count(self) -> str:
        """Return the statement that counts the rows."""
        return f"SELECT count() FROM sessions_v1 FINAL WHERE {_all(*self.place, *self.rows)}"  # noqa: S608


def page(selection: Selection, request: PageRequest) -> Selection:
    """Return the part of *selection* that *request* asks for, from its cursor on."""
    return selection if request.cursor is None else selection.beyond(request.cursor, request.direction)


def nearby_limit(wanted: SessionFilter, request: PageRequest, now: datetime) -> datetime | None:
    """Return how far from its beginning a page should be looked for at first; None where that is not known."""
    beginning = None if request.cursor is None else request.cursor.created_at
    if request.direction is Direction.BEFORE:
        beginning = beginning or wanted.created_from
        return None if beginning is None else beginning + min(NEARBY, LAST - beginning)
    beginning = beginning or min(wanted.created_to or now, now)
    return beginning - min(NEARBY, beginning - FIRST)


def page_statement(selection: Selection, direction: Direction, *, look: bool) -> str:
    """Return the statement of one row: an array of times and ids, and how many stored versions it has looked at.

    Args:
        selection: From the cursor on.
        direction: Which way.
        look: Whether to look at no more than ``{look:UInt32}`` versions.
    """
    window = _look(selection, direction) if look else "WITH (toDateTime64(0, 3, 'UTC'), 0) AS look"
    within = (WITHIN_LOOK[direction],) if look else ()
    return f"""
        {window}
        SELECT groupArray((toUnixTimestamp64Milli(created_at), session_id)), look.2
        FROM (
            SELECT created_at, session_id FROM sessions_v1 FINAL
            WHERE {_all(*selection.place, *selection.rows, *within)}
            {ORDER[direction]} LIMIT {{limit:UInt32}}
        )
    """  # noqa: S608


def _look(selection: Selection, direction: Direction) -> str:
    return f"""
        WITH (
            SELECT ({EDGE[direction]}(created_at), count())
            FROM (
                SELECT created_at FROM sessions_v1 WHERE {_all(*selection.place)}
                {ORDER[direction]} LIMIT {{look:UInt32}}
            )
        ) AS look
    """  # noqa: S608


TAGS: Final = f"""
    SELECT DISTINCT arrayJoin(tags) AS tag FROM sessions_v1 FINAL
    WHERE {" AND ".join(SCOPE)} AND positionUTF8(lowerUTF8(tag), {{part:String}}) > 0
    ORDER BY tag LIMIT {{limit:UInt32}}
"""  # noqa: S608


def tags_parameters(environment: Environment, containing: str, limit: int) -> dict[str, Any]:
    """Return the parameters of :data:`TAGS`."""
    return _scope(environment) | {"part": sendable(containing.lower()), "limit": limit}


def _all(*conditions: str) -> str:
    return " AND ".join(conditions)


def _scope(environment: Environment) -> dict[str, Any]:
    return {
        "organization": environment.organization_id,
        "project": environment.project_id,
        "environment": environment.id,
    }


def _values(wanted: SessionFilter) -> dict[str, Any]:
    """Return the members of *wanted* that are compared with one column each, by their names in the statements."""
    given: dict[str, Any] = {
        "types": [sendable(text) for text in wanted.types],
        "tags": [sendable(text) for text in wanted.tags],
        "tasks": [sendable(text) for text in wanted.tasks],
        "external_id": None if wanted.external_id is None else sendable(wanted.external_id),
    }
    return {name: value for name, value in given.items() if value not in (None, [])}
