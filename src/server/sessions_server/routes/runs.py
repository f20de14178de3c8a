"""Runs, as clients may see them."""

from __future__ import annotations

from aiohttp import web

from sessions_core.domain.ids import RunId
from sessions_server.route import Call, respond
from sessions_server.wire.responses import run_item


async def retrieve(call: Call) -> web.StreamResponse:
    """Read a run."""
    run = await call.sessions.sessions.get_run(call.environment_id, RunId(call.params["run"]))
    return respond(run_item(run, with_error=call.caller.is_secret))
