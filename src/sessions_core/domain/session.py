"""The session: the durable row that outlives its runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import attrs

from sessions_core.domain.channel import Channel, Io, encode_json
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import AddressingKey, ExternalId, RunId, SessionId, addressing_key
from sessions_core.domain.json_values import as_object, check_json
from sessions_core.domain.status import SessionStatus, derive_status
from sessions_core.domain.trigger_config import TriggerConfig, check_tags
from sessions_core.errors import ClosedError, InvalidError, SessionClosedError, SessionExpiredError

MAX_TYPE = 64
MAX_TASK = 128
MAX_CLOSED_REASON = 256
MAX_METADATA_BYTES = 32_768
"""Of the metadata that somebody gives, as JSON: as much as the body of a request over HTTP may hold."""


def to_milliseconds(moment: datetime) -> datetime:
    """Cut *moment* to whole milliseconds in UTC, the resolution in which times are kept and compared."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _length(least: int, most: int, field: str) -> Any:
    def check(_: object, __: object, value: str) -> None:
        if not least <= len(value) <= most:
            raise InvalidError(field, f"must have {least} to {most} characters")
        check_json(value, field=field)

    return check


def _json_object(_: object, __: object, value: Any) -> None:
    if value is not None and as_object(value) is None:
        raise InvalidError("metadata", "must be an object")
    check_json(value, field="metadata")


def check_metadata(metadata: Any) -> None:
    """Check metadata that somebody gives. What a row holds already is not measured again.

    Raises:
        InvalidError: No JSON object, or too large.
    """
    _json_object(None, None, metadata)
    if metadata is not None and len(encode_json(metadata).encode()) > MAX_METADATA_BYTES:
        raise InvalidError("metadata", f"must have at most {MAX_METADATA_BYTES} bytes as JSON")


def _tags(tags: object) -> tuple[str, ...]:
    return check_tags(tags, field="tags")


@attrs.frozen(kw_only=True)
class Session:
    """A durable identity with a pair of channels and at most one current run.

    Construction checks every rule that docs/reference/http.md states for the fields, so an existing object is a valid one.

    Attributes:
        current_run_version: Counts the claims; the number in the guard of ``in``.
        epoch: Counts the attempts begun by current runs; the number in the guard of ``out``.
        sealed_at: When both channels were sealed after the close or expiry; None while that is not done.
    """

    id: SessionId
    environment: Environment
    type: str = attrs.field(validator=_length(1, MAX_TYPE, "type"))
    task: str = attrs.field(validator=_length(1, MAX_TASK, "taskIdentifier"))
    trigger_config: TriggerConfig
    created_at: datetime = attrs.field(converter=to_milliseconds)
    updated_at: datetime = attrs.field(converter=to_milliseconds)
    external_id: ExternalId | None = None
    tags: tuple[str, ...] = attrs.field(default=(), converter=_tags)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, validator=_json_object)
    current_run_id: RunId | None = None
    current_run_version: int = 0
    epoch: int = 0
    closed_at: datetime | None = None
    closed_reason: str | None = None
    expires_at: datetime | None = attrs.field(default=None, converter=attrs.converters.optional(to_milliseconds))
    sealed_at: datetime | None = None
    is_test: bool = False

    @property
    def key(self) -> AddressingKey:
        """The addressing key of the session's channels."""
        return addressing_key(self.id, self.external_id)

    def channel(self, io: Io) -> Channel:
        """Return one of the session's two channels."""
        return Channel(self.environment.id, self.key, io)

    def status(self, now: datetime) -> SessionStatus:
        """Tell the status at *now*."""
        return derive_status(self.closed_at, self.expires_at, now)

    def refusal(self, now: datetime) -> ClosedError | None:
        """Return the error that a write to this session deserves at *now*, or None while it is open."""
        match self.status(now):
            case SessionStatus.ACTIVE:
                return None
            case SessionStatus.CLOSED:
                return SessionClosedError(self.key, self.closed_reason)
            case SessionStatus.EXPIRED:
                return SessionExpiredError(self.key)

    def is_named(self, text: str) -> bool:
        """Tell whether *text* is one of the ids of this session."""
        return text in (self.id, self.external_id)


@attrs.frozen(kw_only=True)
class SessionRun:
    """The history line that says which run served a session, since when, and why."""

    session_id: SessionId
    run_id: RunId
    reason: str
    triggered_at: datetime


class Unset(Enum):
    """Type of :data:`UNSET`."""

    UNSET = "unset"


UNSET = Unset.UNSET
"""Marks a member that an update leaves as it is (None is a value there)."""


def _tags_or_unset(tags: Any) -> tuple[str, ...] | Unset:
    return tags if isinstance(tags, Unset) else _tags(tags)


@attrs.frozen(kw_only=True)
class SessionUpdate:
    """What an update replaces; members left at ``UNSET`` stay."""

    tags: tuple[str, ...] | Unset = attrs.field(default=UNSET, converter=_tags_or_unset)
    metadata: Mapping[str, Any] | Unset | None = UNSET

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.metadata, Unset):
            check_metadata(self.metadata)

    def apply(self, session: Session, now: datetime) -> Session:
        """Return *session* with the update applied at *now*."""
        changes: dict[str, Any] = {"updated_at": now}
        if not isinstance(self.tags, Unset):
            changes["tags"] = self.tags
        if not isinstance(self.metadata, Unset):
            changes["metadata"] = self.metadata
        return attrs.evolve(session, **changes)


@attrs.frozen(kw_only=True)
class Creation:
    """What create-or-get found.

    Attributes:
        session: The row as stored after the call.
        is_new: Whether this call made it.
        refreshed: Whether the stored trigger config is the caller's: always for a new row; for an existing one only if
            it was open, unexpired and of the same task. If False, nothing was written.
    """

    session: Session
    is_new: bool
    refreshed: bool
