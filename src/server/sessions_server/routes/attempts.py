"""Attempts of runs, for engines that carry them out outside this server."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from sessions_core.domain.access import may_grant, run_scopes
from sessions_core.domain.channel import (
    PUBLIC_ACCESS_TOKEN,
    SESSION_IN_EVENT_ID,
    TURN_COMPLETE,
    NewRecord,
    control_record,
    data_record,
)
from sessions_core.domain.ids import RESERVED_PARTS, PartId, RunId
from sessions_core.domain.run import RunRecord
from sessions_core.errors import InvalidError
from sessions_core.outbox import pieces
from sessions_server.epochs import need_epoch
from sessions_server.route import UNSTORED, Call, respond
from sessions_server.routes.channels import PART_HEADER, read_part
from sessions_server.wire.attempts import (
    AppendOut,
    CompleteAttempt,
    HeartbeatItem,
    StartAttempt,
    TurnComplete,
    attempt_item,
)
from sessions_server.wire.responses import Appended, Success
from sessions_server.wire.values import or_none

MAX_OUT: Final = 1_048_576


async def start(call: Call) -> web.StreamResponse:
    """Begin an attempt: get its epoch, and where to go on."""
    body: StartAttempt = call.body
    begun = await call.sessions.attempts.begin(call.environment_id, _run_id(call), body.number)
    stall = call.sessions.settings.sweep.stall.total_seconds()
    token = await _fresh_token(call, begun.run)
    return respond(attempt_item(begun, stall_seconds=stall, token=token), headers=UNSTORED)


async def heartbeat(call: Call) -> web.StreamResponse:
    """Take note that an attempt lives."""
    run = await call.sessions.attempts.beat(call.environment_id, _run_id(call), need_epoch(call))
    return respond(HeartbeatItem(token=await _fresh_token(call, run)), headers=UNSTORED)


async def append(call: Call) -> web.StreamResponse:
    """Append records to ``out`` as the run, and perhaps end a turn."""
    epoch, records = need_epoch(call), await _records(call)
    seq = -1
    for piece in pieces(records):
        appended = await call.sessions.attempts.append(call.environment_id, _run_id(call), epoch, piece)
        seq = appended[-1].seq
    return respond(Appended(ok=True, seq=seq))


async def complete(call: Call) -> web.StreamResponse:
    """End an attempt."""
    body: CompleteAttempt = call.body
    outcome = body.to_outcome()
    await call.sessions.attempts.complete(call.environment_id, _run_id(call), need_epoch(call), outcome)
    return respond(Success(success=True))


def _run_id(call: Call) -> RunId:
    return RunId(call.params["run"])


async def _records(call: Call) -> list[NewRecord]:
    """Make the records of the body. With a part id for the whole, each gets one of its own, so that a retry is safe."""
    body: AppendOut = call.body
    given = _part(call)
    name = given or call.sessions.ids.new_part()
    records = [
        data_record(record.data, PartId(f"{name}.{number}"), dedupe=given is not None)
        for number, record in enumerate(body.records)
    ]
    end = or_none(body.turn_complete)
    if end is not None:
        part_id = None if given is None else PartId(f"{name}.{len(records)}")
        records.append(control_record(TURN_COMPLETE, await _siblings(call, end), part_id))
    return records


def _part(call: Call) -> PartId | None:
    part = read_part(call)
    if part is not None and part.startswith(RESERVED_PARTS):
        raise InvalidError(PART_HEADER, f"must not start with {RESERVED_PARTS}")
    return part


async def _siblings(call: Call, end: TurnComplete) -> dict[str, str]:
    run = await call.sessions.sessions.get_run(call.environment_id, _run_id(call))
    session = await call.sessions.attempts.session_of(run)
    token = await call.sessions.token_issuer.issue(session)
    siblings = {} if end.committed < 0 else {SESSION_IN_EVENT_ID: str(end.committed)}
    return siblings if token is None else {**siblings, PUBLIC_ACCESS_TOKEN: token}


async def _fresh_token(call: Call, run: RunRecord) -> str | None:
    """Return a token for this run alone, if its holder may do with the run what it allows, and for as long."""
    scopes = call.caller.scopes
    if scopes is not None and not may_grant(scopes, run_scopes(run.id, run.key)):
        return None
    token = await call.sessions.token_issuer.issue_for_run(run)
    return token if await call.context.auth.still_lasts(call.header("Authorization")) else None
