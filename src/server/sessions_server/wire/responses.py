"""Response bodies, and how the core's values become them.

Every nullable member is there, as ``null``, because the official clients insist; times are ISO 8601 in UTC with
milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import UNSET, DecodeError, Raw, UnsetType, json

from sessions_core.domain.channel import Batch, Io, Record, RecordKind, Tail, encode_json
from sessions_core.domain.pagination import Page
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session, SessionRun
from sessions_core.domain.status import RunStatus
from sessions_core.domain.waitpoint import Waitpoint, WaitpointStatus
from sessions_core.services.session_service import CreatedSession
from sessions_server.wire.schemas import shown
from sessions_server.wire.values import Wire, iso, legible, maybe_iso, parse_moment

Moment = Annotated[str, shown(format="date-time")]
Direction = Annotated[str, shown(enum=list(Io))]


class SessionItem(Wire, frozen=True, kw_only=True):
    """A session. ``id`` is the friendly id; lists leave ``triggerConfig`` out."""

    id: str
    external_id: str | None
    type: str
    task_identifier: str
    trigger_config: dict[str, Any] | UnsetType = UNSET
    current_run_id: str | None
    tags: list[str]
    metadata: dict[str, Any] | None
    closed_at: Moment | None
    closed_reason: str | None
    expires_at: Moment | None
    created_at: Moment
    updated_at: Moment


class CreatedSessionItem(SessionItem, frozen=True, kw_only=True):
    """A created session with the token for its channels."""

    run_id: str
    public_access_token: str
    is_cached: bool


class Pagination(Wire, frozen=True, kw_only=True):
    """Cursors; one that is absent leads nowhere."""

    next: str | UnsetType = UNSET
    previous: str | UnsetType = UNSET


class SessionList(Wire, frozen=True, kw_only=True):
    """A page of sessions, newest first."""

    data: list[SessionItem]
    pagination: Pagination


class HandOverItem(Wire, frozen=True, kw_only=True):
    """The run that serves the session now, and whether this call made it so."""

    run_id: str
    swapped: bool


class SessionRunItem(Wire, frozen=True, kw_only=True):
    """A line of a session's history."""

    run_id: str
    reason: str
    triggered_at: Moment


class SessionRunList(Wire, frozen=True, kw_only=True):
    """The runs of a session, newest first."""

    data: list[SessionRunItem]


class SessionWaitpointItem(Wire, frozen=True, kw_only=True):
    """A run that waits for a record after ``lastSeqNum``, which is -1 if it knows none."""

    id: str
    run_id: str
    io: Direction
    last_seq_num: int
    tags: list[str]
    created_at: Moment
    timeout_at: Moment | None


class SessionWaitpointList(Wire, frozen=True, kw_only=True):
    """The waiting waitpoints of a session's channels."""

    data: list[SessionWaitpointItem]


class GuardItem(Wire, frozen=True, kw_only=True):
    """A channel's guard: ``live``, ``idle`` or ``sealed``; the number is a run's version on ``in``, an epoch on ``out``."""

    state: Annotated[str, shown(enum=["live", "idle", "sealed"])]
    number: int


class ChannelItem(Wire, frozen=True, kw_only=True):
    """A channel's ends. ``firstSeqNum`` is that of the first kept record, ``nextSeqNum`` that of the record to come."""

    io: Direction
    first_seq_num: int
    next_seq_num: int
    last_record_at: Moment | None
    guard: GuardItem


class ChannelList(Wire, frozen=True, kw_only=True):
    """The channels of a session."""

    data: list[ChannelItem]


class RunItem(Wire, frozen=True, kw_only=True):
    """A run. ``error`` is told to keys only; ``epoch`` is what a run that writes over HTTP names as ``X-Session-Epoch``."""

    id: str
    session_id: str
    task_identifier: str
    status: Annotated[str, shown(enum=list(RunStatus))]
    reason: str
    attempt: int
    epoch: int
    previous_run_id: str | None
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    error: str | None


class _Envelope(Wire, frozen=True, kw_only=True):
    data: Raw
    id: str = ""


class RecordItem(Wire, frozen=True, kw_only=True):
    """A record as drained. Control records have empty ``data`` and ``id``, and ``headers``."""

    data: Raw
    id: str
    seq_num: int
    headers: list[tuple[str, str]] | UnsetType = UNSET


class RecordList(Wire, frozen=True, kw_only=True):
    """Records in order. ``nextEventId`` is there when a limit left some out."""

    records: list[RecordItem]
    next_event_id: str | UnsetType = UNSET


class Appended(Wire, frozen=True, kw_only=True):
    """Where an appended record is."""

    ok: bool
    seq: int


class Initialized(Wire, frozen=True, kw_only=True):
    """The credentials are in the headers."""

    version: str


class WaitCreated(Wire, frozen=True, kw_only=True):
    """A waitpoint, new or found by its idempotency key."""

    waitpoint_id: str
    is_cached: bool


class WaitpointItem(Wire, frozen=True, kw_only=True):
    """A waitpoint. ``output`` is JSON text, ``seq`` the record that completed it."""

    id: str
    url: str
    status: Annotated[str, shown(enum=list(WaitpointStatus))]
    tags: list[str]
    created_at: Moment
    timeout_at: Moment | None
    completed_at: Moment | None
    idempotency_key: str | UnsetType = UNSET
    output: str | UnsetType = UNSET
    output_type: str | UnsetType = UNSET
    output_is_error: bool | UnsetType = UNSET
    seq: int | UnsetType = UNSET


class Success(Wire, frozen=True, kw_only=True):
    """Done."""

    success: bool


class TokenClaims(Wire, frozen=True, kw_only=True):
    """What a token of this environment has to claim."""

    sub: str
    pub: bool


class PublicTokenItem(Wire, frozen=True, kw_only=True):
    """A minted token."""

    token: str


class Health(Wire, frozen=True, kw_only=True):
    """How the server is; where it replicates, also how that goes: ``leader``, ``standby`` or ``failing``."""

    status: Annotated[str, shown(enum=["ok", "ready", "draining", "unavailable"])]
    replication: Annotated[str, shown(enum=["leader", "standby", "failing"])] | UnsetType = UNSET


def _members(session: Session, *, whole: bool) -> dict[str, Any]:
    return {
        "id": session.id,
        "external_id": session.external_id,
        "type": session.type,
        "task_identifier": session.task,
        "trigger_config": dict(session.trigger_config.members) if whole else UNSET,
        "current_run_id": session.current_run_id,
        "tags": list(session.tags),
        "metadata": None if session.metadata is None else dict(session.metadata),
        "closed_at": maybe_iso(session.closed_at),
        "closed_reason": session.closed_reason,
        "expires_at": maybe_iso(session.expires_at),
        "created_at": iso(session.created_at),
        "updated_at": iso(session.updated_at),
    }


def session_item(session: Session, *, whole: bool = True) -> SessionItem:
    """Show a session."""
    return SessionItem(**_members(session, whole=whole))


def created_item(created: CreatedSession, token: str) -> CreatedSessionItem:
    """Show a created session with its token."""
    return CreatedSessionItem(
        **_members(created.session, whole=True),
        run_id=created.run_id,
        public_access_token=token,
        is_cached=created.is_cached,
    )


def session_list(page: Page) -> SessionList:
    """Show a page."""
    return SessionList(
        data=[session_item(session, whole=False) for session in page.items],
        pagination=Pagination(
            next=UNSET if page.next is None else page.next.encode(),
            previous=UNSET if page.previous is None else page.previous.encode(),
        ),
    )


def run_list(runs: list[SessionRun]) -> SessionRunList:
    """Show a session's history."""
    return SessionRunList(
        data=[SessionRunItem(run_id=r.run_id, reason=r.reason, triggered_at=iso(r.triggered_at)) for r in runs]
    )


def waitpoint_list(waitpoints: list[Waitpoint]) -> SessionWaitpointList:
    """Show who waits."""
    return SessionWaitpointList(
        data=[
            SessionWaitpointItem(
                id=waitpoint.id,
                run_id=waitpoint.run_id,
                io=waitpoint.channel.io,
                last_seq_num=waitpoint.after_seq,
                tags=list(waitpoint.tags),
                created_at=iso(waitpoint.created_at),
                timeout_at=maybe_iso(waitpoint.expires_at),
            )
            for waitpoint in waitpoints
        ]
    )


def channel_item(io: Io, tail: Tail) -> ChannelItem:
    """Show a channel's ends."""
    return ChannelItem(
        io=io,
        first_seq_num=tail.first_seq,
        next_seq_num=tail.next_seq,
        last_record_at=iso(parse_moment(tail.timestamp, name="timestamp")) if tail.next_seq else None,
        guard=GuardItem(state=tail.guard.state.name.lower(), number=tail.guard.number),
    )


def run_item(run: RunRecord, *, with_error: bool) -> RunItem:
    """Show a run, with its error only to those who may know it."""
    return RunItem(
        id=run.id,
        session_id=run.session_id,
        task_identifier=run.task,
        status=run.status.value,
        reason=run.reason,
        attempt=run.attempt,
        epoch=run.epoch,
        previous_run_id=run.previous_run_id,
        created_at=iso(run.created_at),
        started_at=maybe_iso(run.started_at),
        ended_at=maybe_iso(run.ended_at),
        error=run.error if with_error else None,
    )


def waitpoint_item(waitpoint: Waitpoint, url: str) -> WaitpointItem:
    """Show a waitpoint; *url* is where it can be read again."""
    ended = not waitpoint.is_waiting
    return WaitpointItem(
        id=waitpoint.id,
        url=url,
        status=waitpoint.status.value,
        tags=list(waitpoint.tags),
        created_at=iso(waitpoint.created_at),
        timeout_at=maybe_iso(waitpoint.expires_at),
        completed_at=maybe_iso(waitpoint.completed_at),
        idempotency_key=UNSET if waitpoint.idempotency_key is None else waitpoint.idempotency_key,
        output=_output_text(waitpoint.output) if ended else UNSET,
        output_type="application/json" if ended else UNSET,
        output_is_error=waitpoint.status is WaitpointStatus.TIMED_OUT if ended else UNSET,
        seq=UNSET if waitpoint.seq is None else waitpoint.seq,
    )


def _output_text(output: Any) -> str:
    """Return what a waiter parses: the text that came through an append as it is, everything else as JSON."""
    return output if isinstance(output, str) else encode_json(output)


_ENVELOPE: Final = json.Decoder(_Envelope)
_EMPTY: Final = Raw(b'""')


def record_item(record: Record) -> RecordItem:
    """Show a record. A body that is no envelope, as a control record's, has empty data and id."""
    headers = UNSET if not record.headers else [(legible(name), legible(value)) for name, value in record.headers]
    try:
        envelope = _ENVELOPE.decode(record.body.decode(errors="replace"))
    except (DecodeError, RecursionError):
        return RecordItem(data=_EMPTY, id="", seq_num=record.seq, headers=headers)
    return RecordItem(data=envelope.data, id=envelope.id, seq_num=record.seq, headers=headers)


def record_list(batch: Batch) -> RecordList:
    """Show what was read, without commands; say where to go on if there was more."""
    last = batch.records[-1].seq if batch.records else None
    more = last is not None and last + 1 < batch.next_seq
    return RecordList(
        records=[record_item(record) for record in batch.records if record.kind is not RecordKind.COMMAND],
        next_event_id=str(last) if more else UNSET,
    )
