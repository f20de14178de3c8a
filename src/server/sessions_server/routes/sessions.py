"""Sessions: create, list, read, change, close, hand over."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from sessions_core.domain.access import may_create, session_scopes
from sessions_core.domain.channel import Io
from sessions_core.errors import TaskMismatchError
from sessions_server.auth.tokens import counted_by
from sessions_server.epochs import read_epoch
from sessions_server.problems import ForbiddenError
from sessions_server.route import UNSTORED, Call, respond
from sessions_server.wire.requests import CloseSession, CreateSession, EndAndContinue, UpdateSession
from sessions_server.wire.responses import (
    ChannelList,
    HandOverItem,
    channel_item,
    created_item,
    run_list,
    session_item,
    session_list,
    waitpoint_list,
)

MAX_WAITPOINTS: Final = 100


async def create(call: Call) -> web.StreamResponse:
    """Create a session, or get the open one with the same external id."""
    body: CreateSession = call.body
    try:
        created = await call.sessions.sessions.create(call.environment, body.to_new_session())
    except TaskMismatchError as error:
        if call.caller.scopes is not None and not may_create(call.caller.scopes, error.stored_task):
            raise ForbiddenError from None
        raise
    lifetime = call.context.config.session_token_lifetime
    scopes = session_scopes(created.session.key)
    token = await call.context.auth.mint(call.caller, scopes, lifetime, counted_by(scopes), is_rolling=True)
    return respond(created_item(created, token), 200 if created.is_cached else 201, UNSTORED)


async def list_all(call: Call) -> web.StreamResponse:
    """List sessions, newest first."""
    wanted = call.query.to_filter(call.environment_id)
    page = await call.sessions.sessions.list_sessions(call.environment, wanted, call.query.page)
    return respond(session_list(page))


async def retrieve(call: Call) -> web.StreamResponse:
    """Read a session as stored now."""
    return respond(session_item(await call.sessions.sessions.get(call.environment_id, call.name)))


async def update(call: Call) -> web.StreamResponse:
    """Replace tags or metadata."""
    body: UpdateSession = call.body
    change = body.to_update()
    body.check_external_id(await call.get_session())
    return respond(session_item(await call.sessions.sessions.update(call.environment_id, call.name, change)))


async def close(call: Call) -> web.StreamResponse:
    """Close a session for good; the first reason stays."""
    body: CloseSession = call.body
    run = body.calling_run
    session = await call.sessions.sessions.close(
        call.environment_id,
        call.name,
        body.stated_reason,
        calling_run=run,
        epoch=None if run is None else read_epoch(call),
    )
    return respond(session_item(session))


async def end_and_continue(call: Call) -> web.StreamResponse:
    """Hand the session over from the calling run to a new one."""
    body: EndAndContinue = call.body
    done = await call.sessions.sessions.end_and_continue(
        call.environment_id, call.name, body.calling_run, body.reason, epoch=read_epoch(call)
    )
    return respond(HandOverItem(run_id=done.run_id, swapped=done.swapped))


async def list_runs(call: Call) -> web.StreamResponse:
    """List the newest runs that have served a session."""
    return respond(run_list(await call.sessions.sessions.list_runs(call.environment_id, call.name, call.query)))


async def list_waitpoints(call: Call) -> web.StreamResponse:
    """List who waits on the session's channels."""
    waiting = await call.sessions.waits.list_waiting(await call.get_session(), MAX_WAITPOINTS)
    return respond(waitpoint_list(waiting))


async def list_channels(call: Call) -> web.StreamResponse:
    """List the session's channels with their ends as they are now."""
    session = await call.get_session()
    tails = [channel_item(io, await call.sessions.channels.tail(session.channel(io))) for io in Io]
    return respond(ChannelList(data=tails))
