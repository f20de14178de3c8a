"""Query strings: as a flat map of texts, and what two routes read from them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl

import attrs

from sessions_core.domain.ids import EnvironmentId, ExternalId
from sessions_core.domain.pagination import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    Cursor,
    Direction,
    PageRequest,
    SessionFilter,
)
from sessions_core.domain.status import SessionStatus
from sessions_core.domain.waitpoint import parse_duration
from sessions_core.errors import InvalidError
from sessions_server.route import Context, Query
from sessions_server.wire.values import MAX_NUMBER, parse_digits, parse_moment

MAX_RECORDS: Final = 1000
MAX_RUNS: Final = 100
_LONGEST_MS: Final = 100 * 365 * 86_400_000


def parse_query(text: str) -> Query:
    """Read a query string; of a repeated name the last value counts.

    Raises:
        InvalidError: No UTF-8, or U+0000.
    """
    if not text:
        return {}
    if "%00" in text:
        raise InvalidError("query", "must not contain U+0000")
    try:
        text.encode()  # over HTTP/2 it may be no UTF-8 even without being unquoted
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise InvalidError("query", "is not valid UTF-8") from None


@attrs.frozen(kw_only=True)
class ListQuery:
    """What ``GET /api/v1/sessions`` asks for."""

    page: PageRequest
    types: tuple[str, ...]
    tags: tuple[str, ...]
    tasks: tuple[str, ...]
    statuses: tuple[SessionStatus, ...]
    external_id: str | None
    created_from: datetime | None
    created_to: datetime | None

    def to_filter(self, environment_id: EnvironmentId) -> SessionFilter:
        """Confine it to an environment."""
        return SessionFilter(
            environment_id=environment_id,
            types=self.types,
            tags=self.tags,
            tasks=self.tasks,
            statuses=self.statuses,
            external_id=None if self.external_id is None else ExternalId(self.external_id),
            created_from=self.created_from,
            created_to=self.created_to,
        )


def parse_list(query: Query, context: Context) -> ListQuery:
    """Read the list's parameters.

    Raises:
        InvalidError: Names the wrong one.
    """
    return ListQuery(
        page=_page(query),
        types=_several(query, "filter[type]"),
        tags=_several(query, "filter[tags]"),
        tasks=_several(query, "filter[taskIdentifier]"),
        statuses=tuple(_status(word) for word in _several(query, "filter[status]")),
        external_id=query.get("filter[externalId]") or None,
        created_from=_created_from(query, context.sessions.clock.now()),
        created_to=_moment(query, "filter[createdAt][to]"),
    )


def _several(query: Query, name: str) -> tuple[str, ...]:
    return tuple(word for word in query.get(name, "").split(",") if word)


def _page(query: Query) -> PageRequest:
    after, before = query.get("page[after]"), query.get("page[before]")
    if after and before:
        raise InvalidError("page[after]", "cannot be passed together with page[before]")
    text = query.get("page[size]")
    size = DEFAULT_PAGE_SIZE if not text else parse_digits(text, "page[size]", 1, MAX_PAGE_SIZE)
    if before:
        return PageRequest(size=size, cursor=Cursor.decode(before, field="page[before]"), direction=Direction.BEFORE)
    return PageRequest(size=size, cursor=Cursor.decode(after, field="page[after]") if after else None)


def _status(word: str) -> SessionStatus:
    try:
        return SessionStatus(word)
    except ValueError:
        raise InvalidError("filter[status]", f"must be of {', '.join(SessionStatus)}") from None


def _created_from(query: Query, now: datetime) -> datetime | None:
    bounds = (_moment(query, "filter[createdAt][from]"), _period_start(query.get("filter[createdAt][period]", ""), now))
    return max((bound for bound in bounds if bound is not None), default=None)


def _period_start(text: str, now: datetime) -> datetime | None:
    """Return the beginning of the period up to *now*; a bare number means milliseconds, nonsense means no period."""
    if text.isascii() and text.isdigit():
        return now - timedelta(milliseconds=min(int(text[:16]), _LONGEST_MS))
    period = parse_duration(text)
    return None if period is None else now - period


def _moment(query: Query, name: str) -> datetime | None:
    text = query.get(name)
    if not text:
        return None
    if text.removeprefix("-").isdigit() and text.isascii() and len(text) <= 16:
        return parse_moment(int(text), name=name)
    return parse_moment(text, name=name)


@attrs.frozen(kw_only=True)
class RecordsQuery:
    """What ``GET …/records`` asks for."""

    start: int
    limit: int | None


def parse_records(query: Query, context: Context) -> RecordsQuery:  # noqa: ARG001 - the shape of all readers
    """Read the parameters of ``records``.

    Raises:
        InvalidError: Names the wrong one.
    """
    after, limit = query.get("afterEventId"), query.get("limit")
    return RecordsQuery(
        start=0 if after is None else parse_digits(after, "afterEventId", 0, MAX_NUMBER) + 1,
        limit=None if limit is None else parse_digits(limit, "limit", 1, MAX_RECORDS),
    )


def parse_runs(query: Query, context: Context) -> int:  # noqa: ARG001 - the shape of all readers
    """Read how many runs are wanted.

    Raises:
        InvalidError: No number, or out of range.
    """
    limit = query.get("limit")
    return MAX_RUNS if limit is None else parse_digits(limit, "limit", 1, MAX_RUNS)
