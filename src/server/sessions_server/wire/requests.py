"""Request bodies. What a value has to be like beyond its type is the domain's business."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, UnsetType, field

from sessions_core.domain.channel import Io
from sessions_core.domain.ids import MAX_EXTERNAL_ID, SESSION_PREFIX, RunId, parse_external_id
from sessions_core.domain.session import MAX_CLOSED_REASON, MAX_TASK, MAX_TYPE, Session, SessionUpdate
from sessions_core.domain.session import UNSET as CORE_UNSET
from sessions_core.domain.trigger_config import (
    MACHINES,
    MAX_DURATION_SECONDS,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    TriggerConfig,
)
from sessions_core.domain.waitpoint import MAX_IDEMPOTENCY_KEY
from sessions_core.errors import ExternalIdImmutableError
from sessions_core.services.session_service import NewSession
from sessions_core.services.wait_service import WaitRequest
from sessions_server.wire.schemas import listed, shown, text, whole
from sessions_server.wire.values import (
    MAX_NAME,
    MAX_NUMBER,
    Wire,
    check_text,
    or_none,
    parse_moment,
    parse_whole,
)

MAX_REASON: Final = 64
_LAST_MILLISECOND: Final = 253_402_300_799_999
_TRIGGER_CONFIG: Final = {
    "required": ["basePayload"],
    "properties": {
        "basePayload": {"type": "object", "description": "What every run's payload starts from."},
        "machine": {"enum": [*sorted(MACHINES), None]},
        "queue": {"anyOf": [text(MAX_TAG_LENGTH), {"type": "null"}]},
        "concurrencyKey": {"anyOf": [text(), {"type": "null"}]},
        "tags": {"anyOf": [listed(text(MAX_TAG_LENGTH), MAX_TAGS), {"type": "null"}]},
        "maxAttempts": {"anyOf": [whole(1, 10), {"type": "null"}]},
        "maxDuration": {"anyOf": [whole(1, MAX_DURATION_SECONDS), {"type": "null"}]},
        "lockToVersion": {"anyOf": [text(), {"type": "null"}]},
        "region": {"anyOf": [text(), {"type": "null"}]},
        "idleTimeoutInSeconds": {"anyOf": [whole(1, 3600), {"type": "null"}]},
        "ttl": {"anyOf": [text(MAX_TAG_LENGTH), whole(1, MAX_NUMBER), {"type": "null"}]},
    },
}
_NOT_FRIENDLY: Final = {"not": {"pattern": rf"^\s*{SESSION_PREFIX}"}}

Name = Annotated[str, shown(text(MAX_NAME, least=1))]
Tag = Annotated[str, shown(text(MAX_TAG_LENGTH))]
Tags = Annotated[list[Tag], shown(maxItems=MAX_TAGS)]
GivenId = Annotated[str, shown(text(MAX_EXTERNAL_ID, least=1), _NOT_FRIENDLY)]
Moment = Annotated[str, shown(format="date-time")] | Annotated[int | float, shown(whole(0, _LAST_MILLISECOND))]


class CreateSession(Wire, frozen=True, kw_only=True):
    """Body of ``POST /api/v1/sessions``."""

    type: Annotated[str, shown(text(MAX_TYPE, least=1))]
    task_identifier: Annotated[str, shown(text(MAX_TASK, least=1))]
    trigger_config: Annotated[dict[str, Any], shown(_TRIGGER_CONFIG)]
    external_id: GivenId | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET

    def to_new_session(self) -> NewSession:
        """Return what is asked for.

        Raises:
            InvalidError: A value breaks a rule.
        """
        return NewSession(
            type=self.type,
            task=self.task_identifier,
            trigger_config=TriggerConfig(self.trigger_config),
            external_id=None if self.external_id is UNSET else parse_external_id(self.external_id),
            tags=() if self.tags is UNSET else tuple(self.tags),
            metadata=or_none(self.metadata),
            expires_at=None if self._never_expires else parse_moment(or_none(self.expires_at), name="expiresAt"),
        )

    @property
    def _never_expires(self) -> bool:
        return or_none(self.expires_at) is None


class UpdateSession(Wire, frozen=True, kw_only=True):
    """Body of ``PATCH /api/v1/sessions/{session}``; what is left out stays as it is."""

    tags: Tags | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    external_id: GivenId | UnsetType | None = UNSET

    def to_update(self) -> SessionUpdate:
        """Return the change, leaving the external id to :meth:`check_external_id`."""
        return SessionUpdate(
            tags=CORE_UNSET if self.tags is UNSET else tuple(self.tags),
            metadata=CORE_UNSET if self.metadata is UNSET else self.metadata,
        )

    def check_external_id(self, stored: Session) -> None:
        """Refuse to change, set or clear the external id; naming the stored one is no change.

        Raises:
            ExternalIdImmutableError: It is another one.
        """
        if self.external_id is UNSET:
            return
        wanted = None if self.external_id is None else parse_external_id(self.external_id)
        if wanted != stored.external_id:
            raise ExternalIdImmutableError


class CloseSession(Wire, frozen=True, kw_only=True):
    """Body of ``POST …/close``; may be empty."""

    reason: Annotated[str, shown(text(MAX_CLOSED_REASON))] | UnsetType = UNSET
    calling_run_id: Name | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.reason is not UNSET:
            check_text(self.reason, "reason", MAX_CLOSED_REASON, least=0)
        if self.calling_run_id is not UNSET:
            check_text(self.calling_run_id, "callingRunId", MAX_NAME)

    @property
    def stated_reason(self) -> str | None:
        """The reason, if one is given."""
        return None if self.reason is UNSET else self.reason

    @property
    def calling_run(self) -> RunId | None:
        """The run that closes its own session, if it says so."""
        return None if self.calling_run_id is UNSET else RunId(self.calling_run_id)


class EndAndContinue(Wire, frozen=True, kw_only=True):
    """Body of ``POST …/end-and-continue``."""

    calling_run_id: Name
    reason: Annotated[str, shown(text(MAX_REASON))]

    def __post_init__(self) -> None:
        check_text(self.calling_run_id, "callingRunId", MAX_NAME)
        check_text(self.reason, "reason", MAX_REASON, least=0)

    @property
    def calling_run(self) -> RunId:
        """The run that hands over."""
        return RunId(self.calling_run_id)


class CreateWait(Wire, frozen=True, kw_only=True):
    """Body of ``POST …/session-streams/wait``."""

    session: Name
    io: Literal["in", "out"]
    timeout: str | UnsetType = UNSET
    idempotency_key: Annotated[str, shown(text(MAX_IDEMPOTENCY_KEY))] | UnsetType = UNSET
    idempotency_key_ttl: str | UnsetType = field(name="idempotencyKeyTTL", default=UNSET)
    tags: Tag | Tags | UnsetType = UNSET
    last_seq_num: Annotated[int | float, shown(whole(-1, MAX_NUMBER))] | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_text(self.session, "session", MAX_NAME)
        if self.idempotency_key is not UNSET:
            check_text(self.idempotency_key, "idempotencyKey", MAX_IDEMPOTENCY_KEY, least=0)

    def to_request(self) -> WaitRequest:
        """Return what is asked for.

        Raises:
            InvalidError: A value breaks a rule.
        """
        tags = (self.tags,) if isinstance(self.tags, str) else or_none(self.tags)
        return WaitRequest(
            session=self.session,
            io=Io(self.io),
            timeout=or_none(self.timeout),
            idempotency_key=or_none(self.idempotency_key) or None,
            idempotency_ttl=or_none(self.idempotency_key_ttl),
            tags=tags or (),
            after_seq=None if self.last_seq_num is UNSET else parse_whole(self.last_seq_num, "lastSeqNum"),
        )


class CreatePublicToken(Wire, frozen=True, kw_only=True):
    """Body of ``POST /api/v1/auth/public-tokens``."""

    scopes: list[str]
    expiration_time: str | int | float | UnsetType = UNSET
    one_time_use: bool | UnsetType = UNSET
    realtime: dict[str, Any] | UnsetType = UNSET
