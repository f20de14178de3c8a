"""Waits: a run waits for the next record of a channel."""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web

from sessions_core.domain.ids import RunId, WaitpointId
from sessions_server.route import Call, respond
from sessions_server.sse import MAX_WINDOW_SECONDS
from sessions_server.wire.requests import CreateWait
from sessions_server.wire.responses import Success, WaitCreated, waitpoint_item
from sessions_server.wire.values import parse_digits


async def create(call: Call) -> web.StreamResponse:
    """Create a waitpoint, or get the one with the same idempotency key."""
    body: CreateWait = call.body
    creation = await call.sessions.waits.create(call.environment_id, RunId(call.params["run"]), body.to_request())
    return respond(WaitCreated(waitpoint_id=creation.waitpoint.id, is_cached=creation.is_cached))


async def retrieve(call: Call) -> web.StreamResponse:
    """Read a waitpoint; with ``Timeout-Seconds``, wait so long for its end."""
    waitpoint_id = WaitpointId(call.params["waitpoint"])
    text = call.header("Timeout-Seconds")
    if text is not None:
        patience = timedelta(seconds=parse_digits(text.strip(), "Timeout-Seconds", 1, MAX_WINDOW_SECONDS))
        with call.context.streams.open():  # A server that stops answers at once with what it knows.
            await call.sessions.waits.wait(call.environment_id, waitpoint_id, patience)
    waitpoint = await call.sessions.waits.get(call.environment_id, waitpoint_id)
    return respond(waitpoint_item(waitpoint, _url_of(call)))


def _url_of(call: Call) -> str:
    """Return where the waitpoint can be read again: only the path, if the request's ``Host`` is none."""
    try:
        return str(call.request.url.with_query(None))
    except ValueError:
        return call.request.rel_url.raw_path


async def block(call: Call) -> web.StreamResponse:
    """Accept that a run waits for a waitpoint; how it is told of the end is its worker's business."""
    await call.sessions.sessions.get_run(call.environment_id, RunId(call.params["run"]))
    await call.sessions.waits.get(call.environment_id, WaitpointId(call.params["waitpoint"]))
    return respond(Success(success=True))
