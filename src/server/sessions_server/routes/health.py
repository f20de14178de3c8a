"""For those who run the server: is it alive, is it ready, what does it count, what does it speak."""

from __future__ import annotations

from aiohttp import web
from msgspec import UNSET

from sessions_server.route import JSON, Call, respond
from sessions_server.wire.responses import Health


async def alive(_: Call) -> web.StreamResponse:
    """Answer, whatever else is broken."""
    return respond(Health(status="ok"))


async def ready(call: Call) -> web.StreamResponse:
    """Tell whether requests should be sent here: the stores answer, and the server is not about to stop.

    Replication that fails is told, and changes nothing: all but lists is as good as ever, and another server is no better.
    """
    if call.context.streams.is_draining:
        return respond(Health(status="draining"), 503)
    if not await call.context.readiness.look():
        return respond(Health(status="unavailable"), 503)
    replication = call.context.replication
    return respond(Health(status="ready", replication=UNSET if replication is None else replication.word))


async def metrics(call: Call) -> web.StreamResponse:
    """Show the counters."""
    headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body=call.context.metrics.render(), headers=headers)


async def document(call: Call) -> web.StreamResponse:
    """Show the OpenAPI document."""
    return web.Response(body=call.context.document, headers=JSON)
