"""For those who run the server: is it alive, is it ready, what does it count, what does it speak."""

from __future__ import annotations

from aiohttp import web

from sessions_core.errors import UnavailableError
from sessions_server.route import JSON, Call, respond
from sessions_server.wire.responses import Health


async def alive(_: Call) -> web.StreamResponse:
    """Answer, whatever else is broken."""
    return respond(Health(status="ok"))


async def ready(call: Call) -> web.StreamResponse:
    """Tell whether requests should be sent here: the stores answer, and the server is not about to stop."""
    if call.context.streams.is_draining:
        return respond(Health(status="draining"), 503)
    try:
        await call.sessions.check()
    except UnavailableError:
        return respond(Health(status="unavailable"), 503)
    return respond(Health(status="ready"))


async def metrics(call: Call) -> web.StreamResponse:
    """Show the counters."""
    headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body=call.context.metrics.render(), headers=headers)


async def document(call: Call) -> web.StreamResponse:
    """Show the OpenAPI document."""
    return web.Response(body=call.context.document, headers=JSON)
