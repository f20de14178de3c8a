"""The server: the pipeline behind aiohttp's low-level server, and what starts and stops with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sessions_core.facade import Sessions
from sessions_server.auth import Authenticator
from sessions_server.config import Config
from sessions_server.data_plane import http1
from sessions_server.data_plane.credentials import DirectTokens
from sessions_server.data_plane.service import DataPlane
from sessions_server.http2 import bridge
from sessions_server.http2.listener import Listener
from sessions_server.http2.stream import Stream
from sessions_server.metrics import Metrics
from sessions_server.openapi import make_document
from sessions_server.page_access import Page
from sessions_server.pipeline import Pipeline
from sessions_server.replication_health import ReplicationStatus
from sessions_server.route import Context
from sessions_server.streams import Streams
from sessions_server.table import PAGE_ROUTES, ROUTES
from sessions_server.tls import server_context

SHUTDOWN_SECONDS: Final = 5.0


Refuse = Callable[[web.BaseRequest], web.StreamResponse]


class _Connection(web.RequestHandler):
    """A connection that refuses what is no HTTP in the same words as everything else."""

    __slots__ = ("_refuse",)

    def __init__(self, manager: web.Server, refuse: Refuse, **options: Any) -> None:
        super().__init__(manager, **options)
        self._refuse = refuse

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Log the error and make its answer."""
        response = super().handle_error(request, status, exc, message)
        if isinstance(exc, HttpProcessingError):
            response = self._refuse(request)
            response.force_close()
        return response


class _Server(web.Server):
    """Makes a handler for each connection."""

    def __init__(self, handle: Callable[[web.BaseRequest], Any], refuse: Refuse) -> None:
        # Without cancellation a subscription lives on after its reader has left.
        super().__init__(handle, handler_cancellation=True, access_log=None)
        self._refuse = refuse

    def __call__(self) -> web.RequestHandler:
        """Make one."""
        return _Connection(self, self._refuse, loop=self._loop, **self._kwargs)


@attrs.define(eq=False)
class HttpServer:
    """Takes connections between :meth:`listen` and :meth:`close`.

    The pipeline routes by itself, so aiohttp's application and its router are not in the way of every request. In an
    application of your own, ``app.router.add_route("*", "/{path:.*}", server.handle)`` does the same.

    Attributes:
        address: ``http://host:port``, or ``https://…``, once it listens.
    """

    context: Context
    address: str = attrs.field(init=False, default="")
    _pipeline: Pipeline = attrs.field(init=False)
    _data_plane: DataPlane = attrs.field(init=False)
    _runner: web.ServerRunner | None = attrs.field(init=False, default=None)
    _listener: Listener | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._pipeline = Pipeline(ROUTES, self.context, PAGE_ROUTES)
        self._data_plane = DataPlane(self.context)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if DataPlane.owns(request.rel_url.raw_path):
            is_ending = self.context.streams.is_draining
            return await http1.answer(self._data_plane.handle, request, is_ending=is_ending)
        return await self._pipeline.handle(request)

    async def _answer(self, stream: Stream) -> None:
        """Answer one request that came over HTTP/2."""
        if DataPlane.owns(stream.path):
            await self._data_plane.handle(stream)
        else:
            await bridge.answer(stream, self.handle)

    async def listen(self, host: str, port: int, sockets: Sequence[socket.socket] = ()) -> None:
        """Start to take connections, from *sockets* if there are any, which listen already.

        Raises:
            InvalidError: The certificate or its key cannot be used.
            OSError: The address cannot be had.
        """
        config = self.context.config
        tls = server_context(config.tls_cert, config.tls_key)
        server = _Server(self.handle, self._pipeline.refuse)
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        self._listener = Listener(server, self._answer, lambda: self.context.streams.is_draining, tls=tls)
        addresses = await self._listener.open(host, port, sockets)
        self.context.page.listens_on(address[0] for address in addresses)
        bound_host, bound_port = addresses[0][:2]
        shown_host = f"[{bound_host}]" if ":" in bound_host else bound_host
        self.address = f"{'http' if tls is None else 'https'}://{shown_host}:{bound_port}"

    async def drain(self) -> None:
        """Say on ``/readyz`` that this server is about to stop, and serve on for the configured time."""
        self.context.streams.is_draining = True
        await asyncio.sleep(self.context.config.drain_delay.total_seconds())

    async def close(self) -> None:
        """End all subscriptions cleanly, finish the changes under way, also those of clients that left; take no more."""
        self.context.streams.end()
        if self._listener is not None and self._runner is not None:
            self._listener.stop()
            await asyncio.gather(self._listener.close(SHUTDOWN_SECONDS), self._runner.cleanup())
        await self._pipeline.settle(SHUTDOWN_SECONDS)
        await self.context.auth.uses.settle(SHUTDOWN_SECONDS)


def build_server(
    sessions: Sessions,
    config: Config,
    *,
    metrics: Metrics | None = None,
    replication: ReplicationStatus | None = None,
) -> HttpServer:
    """Make the server of *sessions*.

    Args:
        sessions: Opened, and closed after the server, by the caller.
        config: Settings.
        metrics: Counters; give the object that observes the core, too, so that ``/metrics`` shows both.
        replication: What ``/readyz`` says about it, where this process replicates.
    """
    auth = Authenticator(environments=sessions.environments, ledger=sessions.tokens, clock=sessions.clock)
    context = Context(
        sessions=sessions,
        config=config,
        auth=auth,
        direct_tokens=DirectTokens(auth, sessions.clock),
        streams=Streams(),
        metrics=metrics or Metrics(),
        document=make_document(ROUTES),
        page=Page(config.demo),
        replication=replication,
    )
    context.metrics.watch_streams(lambda: len(context.streams))
    return HttpServer(context)
