"""Cursors and pages over ``(created_at DESC, id DESC)``.

A cursor is a *tuple* of time and id, compared as a tuple, so rows that were visible when a walk began appear in it
exactly once, in either direction, also where many rows share one millisecond.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

import attrs

from sessions_core.domain.ids import EnvironmentId, ExternalId, SessionId
from sessions_core.domain.json_values import check_json
from sessions_core.domain.session import Session, to_milliseconds
from sessions_core.domain.status import SessionStatus
from sessions_core.errors import InvalidCursorError, InvalidError

DEFAULT_PAGE_SIZE: Final = 20
MAX_PAGE_SIZE: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND: Final = 253402300799999


@attrs.frozen
class Cursor:
    """A position between rows: just at the row (*created_at*, *id*). Opaque to callers as text."""

    created_at: datetime = attrs.field(converter=to_milliseconds)
    id: SessionId

    def encode(self) -> str:
        """Return the opaque text: URL-safe base64 of ``{"c": <Unix ms>, "s": <id>}``."""
        text = json.dumps({"c": (self.created_at - _EPOCH) // timedelta(milliseconds=1), "s": self.id})
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, *, field: str) -> Cursor:
        """Read the opaque text.

        Raises:
            InvalidCursorError: Not made by :meth:`encode`.
        """
        try:
            value = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
            milliseconds, session_id = value["c"], value["s"]
            check_json(session_id, field=field)
        except (ValueError, TypeError, KeyError, RecursionError, InvalidError):
            raise InvalidCursorError(field, "is not a cursor of this list") from None
        if (
            type(milliseconds) is not int
            or not isinstance(session_id, str)
            or not 0 <= milliseconds <= _LAST_MILLISECOND
        ):
            raise InvalidCursorError(field, "is not a cursor of this list")
        return cls(_EPOCH + timedelta(milliseconds=milliseconds), SessionId(session_id))


class Direction(Enum):
    """Which way a page lies from its cursor."""

    AFTER = "after"
    """Towards older rows, the usual way."""
    BEFORE = "before"
    """Back towards newer rows."""


@attrs.frozen(kw_only=True)
class PageRequest:
    """Which page is asked for."""

    size: int = DEFAULT_PAGE_SIZE
    cursor: Cursor | None = None
    direction: Direction = Direction.AFTER

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.size <= MAX_PAGE_SIZE:
            raise InvalidError("page[size]", f"must be 1 to {MAX_PAGE_SIZE}")


@attrs.frozen(kw_only=True)
class SessionFilter:
    """Which sessions of one environment are wanted; an empty tuple or None does not restrict.

    Members are combined by AND, the values of one member by OR.
    """

    environment_id: EnvironmentId
    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    statuses: tuple[SessionStatus, ...] = ()
    external_id: ExternalId | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None

    def admits(self, session: Session, now: datetime) -> bool:
        """Tell whether *session* is wanted: the definition that every index must agree with."""
        return (
            session.environment.id == self.environment_id
            and (not self.types or session.type in self.types)
            and (not self.tags or not set(self.tags).isdisjoint(session.tags))
            and (not self.tasks or session.task in self.tasks)
            and (self.external_id is None or session.external_id == self.external_id)
            and (self.created_from is None or session.created_at >= self.created_from)
            and (self.created_to is None or session.created_at <= self.created_to)
            and (not self.statuses or session.status(now) in self.statuses)
        )


@attrs.frozen
class IndexEntry:
    """A row of the index: enough to order it and to find the session."""

    created_at: datetime
    id: SessionId

    @property
    def cursor(self) -> Cursor:
        """The cursor at this row."""
        return Cursor(self.created_at, self.id)


@attrs.frozen(kw_only=True)
class Page:
    """One page, newest first. A missing cursor means that there is no such page."""

    items: tuple[Any, ...]
    next: Cursor | None = None
    previous: Cursor | None = None


def make_page(entries: list[IndexEntry], request: PageRequest) -> Page:
    """Cut a page out of up to ``size + 1`` *entries* in the order in which they were read.

    Args:
        entries: From the cursor on in the request's direction: newest first for AFTER, oldest first for BEFORE.
        request: What was asked for.
    """
    more = len(entries) > request.size
    kept = entries[: request.size]
    if request.direction is Direction.BEFORE:
        kept.reverse()
        has_newer, has_older = more, request.cursor is not None
    else:
        has_newer, has_older = request.cursor is not None, more
    if not kept:
        return Page(items=())
    return Page(
        items=tuple(kept),
        next=kept[-1].cursor if has_older else None,
        previous=kept[0].cursor if has_newer else None,
    )
