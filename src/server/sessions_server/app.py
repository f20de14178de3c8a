"""The server: the pipeline behind aiohttp's low-level server, and what starts and stops with it."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Sequence
from functools import cache, partial
from typing import Final

import attrs
from aiohttp import web

from sessions_core.facade import Sessions
from sessions_server.auth.authenticator import Authenticator
from sessions_server.config import Config
from sessions_server.connections.places import Places
from sessions_server.data_plane import http1 as data_plane_http1
from sessions_server.data_plane.credentials import DirectTokens
from sessions_server.data_plane.gate import is_refused
from sessions_server.data_plane.service import DataPlane
from sessions_server.http1.connection import Handle, Server, spell_out
from sessions_server.http1.limits import Http1Limits
from sessions_server.http2 import bridge
from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.stream import Stream
from sessions_server.limits.limits import Limits
from sessions_server.listening.listener import Listener
from sessions_server.listening.tls import server_context
from sessions_server.observability.logs import logger
from sessions_server.observability.metrics import Metrics
from sessions_server.observability.readiness import Readiness
from sessions_server.observability.replication_health import ReplicationStatus
from sessions_server.observability.request_ids import REQUEST_ID
from sessions_server.openapi import make_document
from sessions_server.page_access import Page
from sessions_server.page_environment import PageEnvironment
from sessions_server.pipeline import Pipeline
from sessions_server.problems import HttpError, TooManyConnectionsError
from sessions_server.route import Context
from sessions_server.streams import Streams
from sessions_server.table import PAGE_ROUTES, ROUTES

SHUTDOWN_SECONDS: Final = 5.0
SPARE_FILES: Final = 384
"""What a process opens besides its connections that have a place: its own files, and those of connections that have just been
taken (128 in one turn of the loop) and are about to go (as many, and 100 that are being told so)."""


MOST_CONNECTIONS: Final = 32_768
"""Unless that is set. One that follows a channel takes about 30 kB."""


def _most_connections(config: Config) -> int:
    """Return how many connections the process takes."""
    if config.max_connections is not None:
        return config.max_connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(min(max(files - SPARE_FILES, files // 2), MOST_CONNECTIONS), 1)


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
    _limits: Http2Limits = attrs.field(init=False)
    _runner: web.ServerRunner | None = attrs.field(init=False, default=None)
    _listener: Listener | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._pipeline = Pipeline(ROUTES, self.context, PAGE_ROUTES)
        self._data_plane = DataPlane(self.context)
        self._limits = Http2Limits.of(self.context.config)

    def _is_ending(self) -> bool:
        return self.context.streams.is_draining

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if DataPlane.owns(request.rel_url.raw_path):
            return await data_plane_http1.answer(self._data_plane.handle, request)
        return await self._pipeline.handle(request)

    async def _answer(self, stream: Stream) -> None:
        """Answer one request that came over HTTP/2."""
        refused = bridge.excess_of(stream, self._limits)
        if refused is None and DataPlane.owns(stream.path):
            await self._data_plane.handle(stream)
        else:
            await self._answer_as_http1(stream, refused)

    async def _answer_as_http1(self, stream: Stream, refused: HttpError | None) -> None:
        try:
            await bridge.answer(stream, self.handle if refused is None else self._refusing(refused))
        except ConnectionError:
            raise
        except Exception:
            if stream.is_answered:
                raise
            logger.exception("request failed")
            await bridge.answer(stream, self._refusing(HttpError()))

    def _refusing(self, error: HttpError) -> Handle:
        """Return what answers every request with *error*."""

        async def refuse(request: web.BaseRequest) -> web.StreamResponse:
            return self._pipeline.refuse(error, request.headers.get(REQUEST_ID))

        return refuse

    def _count_connections(self) -> int:
        return 0 if self._listener is None else self._listener.count

    def _refuse_connection(self) -> bytes:
        return spell_out(self._pipeline.refuse(TooManyConnectionsError()))

    async def listen(self, host: str, port: int, sockets: Sequence[socket.socket] = ()) -> None:
        """Start to take connections, from *sockets* if there are any, which listen already.

        Raises:
            InvalidError: The certificate or its key cannot be used.
            OSError: The address cannot be had.
        """
        config = self.context.config
        tls = server_context(config.tls_cert, config.tls_key)
        places = Places(_most_connections(config))
        server = Server(self.handle, self._pipeline.refuse, Http1Limits.of(config), places, self._is_ending)
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        self._listener = Listener(
            server.make,
            self._answer,
            self._limits,
            tls=tls,
            places=places,
            http1_open=lambda: len(server.open),
            http1_surplus=self._refuse_connection,
        )
        self.context.metrics.watch_connections(self._count_connections, places)
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
    metrics = metrics or Metrics()
    auth = Authenticator(environments=sessions.environments, ledger=sessions.tokens, clock=sessions.clock)
    direct_tokens = DirectTokens(auth, sessions.clock)
    context = Context(
        sessions=sessions,
        config=config,
        auth=auth,
        direct_tokens=direct_tokens,
        limits=Limits.of(config, sessions, metrics),
        streams=Streams(partial(is_refused, auth, direct_tokens), config.connection_age.total_seconds()),
        metrics=metrics,
        document=_document(),
        page=Page(PageEnvironment(sessions.environments), config.demo),
        readiness=Readiness(sessions),
        replication=replication,
    )
    context.metrics.watch_streams(lambda: len(context.streams))
    context.metrics.watch_unfinished(lambda: context.limits.unfinished.held)
    return HttpServer(context)


@cache
def _document() -> bytes:
    """Return the OpenAPI document, which is the same for all servers and takes longer to make than the rest of one."""
    return make_document(ROUTES)
