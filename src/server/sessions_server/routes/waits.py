"""Waits: a run waits for the next record of a channel."""

from __future__ import annotations

from datetime import timedelta

import attrs
from aiohttp import web

from sessions_core.domain.ids import RunId, WaitpointId
from sessions_core.services.wait_service import WaitRequest
from sessions_server.route import Call, respond
from sessions_server.sse import MAX_WINDOW_SECONDS
from sessions_server.wire.requests import CreateWait
from sessions_server.wire.responses import Success, WaitCreated, waitpoint_item
from sessions_server.wire.values import parse_digits


async def create(call: Call) -> web.StreamResponse:
    """Create a waitpoint, or get the one with the same idempotency key."""
    run_id, request = RunId(call.params["run"]), _named_apart(call)
    creation = await call.sessions.waits.create(call.environment_id, run_id, request)
    return respond(WaitCreated(waitpoint_id=creation.waitpoint.id, is_cached=creation.is_cached))


def _named_apart(call: Call) -> WaitRequest:
    """Return what is asked for. Idempotency keys of a caller that may not act as every run are kept apart by their run.

    Else one run could take a key that another is going to use, and that one would wait for the wrong thing.
    """
    body: CreateWait = call.body
    request = body.to_request()
    if call.caller.scopes is None or request.idempotency_key is None:
        return request
    return attrs.evolve(request, idempotency_key=f"{call.params['run']}:{request.idempotency_key}")


async def retrieve(call: Call) -> web.StreamResponse:
    """Read a waitpoint; with ``Timeout-Seconds``, wait so long for its end."""
    waitpoint_id = WaitpointId(call.params["waitpoint"])
    text = call.header("Timeout-Seconds")
    if text is not None:
        patience = timedelta(seconds=parse_digits(text.strip(), "Timeout-Seconds", 1, MAX_WINDOW_SECONDS))
        # A server that stops answers at once with what it knows.
        with call.holding_stream(), call.open_stream():
            await call.sessions.waits.wait(call.environment_id, waitpoint_id, patience)
        await call.confirm()
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
