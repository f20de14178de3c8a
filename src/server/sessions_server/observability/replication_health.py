"""How replication is, for those who run it: in a word, and over HTTP where it runs alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
from aiohttp import web

from sessions_core.errors import InvalidError
from sessions_core.services.replication.feed_watch import FeedWatch
from sessions_core.services.replication.replicator import Replicator
from sessions_server.observability.metrics import Metrics

LEADER: Final = "leader"
STANDBY: Final = "standby"
FAILING: Final = "failing"
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@attrs.define
class ReplicationStatus:
    """Says in a word how a replicator is, and what it reads from."""

    _replicator: Replicator
    _watch: FeedWatch

    @property
    def word(self) -> str:
        """``leader``, ``standby`` (somebody else leads), or ``failing``.

        The last is said where the store cannot be read, leaves changes out, or the index cannot be written just now.
        """
        health = self._replicator.health
        if health.failing_since is not None or self._watch.is_failing:
            return FAILING
        return LEADER if health.is_leader else STANDBY


@asynccontextmanager
async def listening(
    status: ReplicationStatus, metrics: Metrics, host: str, port: int | None
) -> AsyncIterator[str | None]:
    """Answer questions inside the block, unless *port* is None; gives the address.

    Raises:
        InvalidError: The address cannot be had.
    """
    if port is None:
        yield None
        return
    application = web.Application()
    application.add_routes(_routes(status, metrics))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await _listen(runner, host, port)
        bound_host, bound_port = runner.addresses[0][:2]
        yield f"http://[{bound_host}]:{bound_port}" if ":" in bound_host else f"http://{bound_host}:{bound_port}"
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise InvalidError("--host/--port", f"cannot be listened on: {error.strerror}; choose another one") from error


def _routes(status: ReplicationStatus, metrics: Metrics) -> list[web.RouteDef]:
    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        word = status.word
        is_failing = word == FAILING
        answer = {"status": "unavailable" if is_failing else "ready", "replication": word}
        return web.json_response(answer, status=503 if is_failing else 200)

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": METRICS_TYPE})

    return [web.get("/healthz", alive), web.get("/readyz", ready), web.get("/metrics", show)]
