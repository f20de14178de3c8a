"""Request bodies. What a value has to be like beyond its type is the domain's business."""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import UNSET, UnsetType, field

from sessions_core.domain.channel import Io
from sessions_core.domain.ids import RunId, parse_external_id
from sessions_core.domain.session import MAX_CLOSED_REASON, Session, SessionUpdate
from sessions_core.domain.session import UNSET as CORE_UNSET
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.domain.waitpoint import MAX_IDEMPOTENCY_KEY
from sessions_core.errors import ExternalIdImmutableError
from sessions_core.services.session_service import NewSession
from sessions_core.services.wait_service import WaitRequest
from sessions_server.wire.values import MAX_NAME, Wire, check_text, or_none, parse_moment, parse_whole

MAX_REASON: Final = 64


class CreateSession(Wire, frozen=True, kw_only=True):
    """Body of ``POST /api/v1/sessions``."""

    type: str
    task_identifier: str
    trigger_config: dict[str, Any]
    external_id: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    expires_at: str | int | float | UnsetType | None = UNSET

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

    tags: list[str] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET
    external_id: str | UnsetType | None = UNSET

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

    reason: str | UnsetType = UNSET
    calling_run_id: str | UnsetType = UNSET

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

    calling_run_id: str
    reason: str

    def __post_init__(self) -> None:
        check_text(self.calling_run_id, "callingRunId", MAX_NAME)
        check_text(self.reason, "reason", MAX_REASON, least=0)

    @property
    def calling_run(self) -> RunId:
        """The run that hands over."""
        return RunId(self.calling_run_id)


class CreateWait(Wire, frozen=True, kw_only=True):
    """Body of ``POST …/session-streams/wait``."""

    session: str
    io: Literal["in", "out"]
    timeout: str | UnsetType = UNSET
    idempotency_key: str | UnsetType = UNSET
    idempotency_key_ttl: str | UnsetType = field(name="idempotencyKeyTTL", default=UNSET)
    tags: str | list[str] | UnsetType = UNSET
    last_seq_num: int | float | UnsetType = UNSET

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
