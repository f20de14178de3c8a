"""The application: the pipeline in an aiohttp application, and what starts and stops with it."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from sessions_core.facade import Sessions
from sessions_server.auth import Authenticator
from sessions_server.config import Config
from sessions_server.metrics import Metrics
from sessions_server.openapi import make_document
from sessions_server.pipeline import Pipeline
from sessions_server.route import Context
from sessions_server.streams import Streams
from sessions_server.table import ROUTES

CONTEXT: Final = web.AppKey("context", Context)


def build_app(sessions: Sessions, config: Config, *, metrics: Metrics | None = None) -> web.Application:
    """Make the application that serves *sessions*.

    Run it with ``web.AppRunner(app, handler_cancellation=True, access_log=None)``: without cancellation a subscription
    lives on after its reader has left.

    Args:
        sessions: Opened, and closed after the application, by the caller.
        config: Settings.
        metrics: Counters; give the object that observes the core, too, so that ``/metrics`` shows both.
    """
    context = Context(
        sessions=sessions,
        config=config,
        auth=Authenticator(environments=sessions.environments, ledger=sessions.tokens, clock=sessions.clock),
        streams=Streams(),
        metrics=metrics or Metrics(),
        document=make_document(ROUTES),
    )
    context.metrics.watch_streams(lambda: len(context.streams))
    app = web.Application()
    app[CONTEXT] = context
    # One catch-all: paths are matched as sent, so an id may hold an encoded slash.
    app.router.add_route("*", "/{path:.*}", Pipeline(ROUTES, context).handle, expect_handler=_expect)
    app.on_shutdown.append(_end_streams)
    return app


async def drain(app: web.Application) -> None:
    """Say on ``/readyz`` that this server is about to stop, and serve on for the configured time."""
    context = app[CONTEXT]
    context.streams.is_draining = True
    await asyncio.sleep(context.config.drain_delay.total_seconds())


async def _end_streams(app: web.Application) -> None:
    app[CONTEXT].streams.end()


async def _expect(request: web.Request) -> None:
    """Ask for the body that the client holds back; other expectations are no reason to refuse."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
