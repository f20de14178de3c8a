"""What the commands read of a server's answers. An answer of another shape is another server's; members beyond it are fine."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypedDict

from msgspec import Meta

Moment = Annotated[datetime, Meta(tz=True)]
"""A time with its zone, as text."""


class SessionRow(TypedDict):
    """A session."""

    id: str
    externalId: str | None
    type: str
    taskIdentifier: str
    tags: list[str]
    metadata: dict[str, Any] | None
    closedAt: Moment | None
    closedReason: str | None
    expiresAt: Moment | None
    createdAt: str
    updatedAt: str


class Cursors(TypedDict, total=False):
    """Where a list goes on, if it does."""

    next: str | None


class SessionPage(TypedDict):
    """A page of sessions."""

    data: list[SessionRow]
    pagination: Cursors


class HistoryLine(TypedDict):
    """A line of a session's history."""

    runId: str
    triggeredAt: str


class History(TypedDict):
    """The runs of a session."""

    data: list[HistoryLine]


class RunRow(TypedDict):
    """A run."""

    id: str
    status: str
    reason: str
    attempt: int
    endedAt: str | None
    error: str | None


class Wait(TypedDict):
    """A run that waits."""

    id: str
    io: str
    runId: str
    lastSeqNum: int
    createdAt: str
    timeoutAt: str | None


class Waits(TypedDict):
    """Who waits on a session."""

    data: list[Wait]


class Guard(TypedDict):
    """Who may append to a channel."""

    state: str
    number: int


class Channel(TypedDict):
    """A channel's ends."""

    io: str
    firstSeqNum: int
    nextSeqNum: int
    lastRecordAt: str | None
    guard: Guard


class Channels(TypedDict):
    """The channels of a session."""

    data: list[Channel]


class Appended(TypedDict):
    """Where a record is."""

    seq: int
