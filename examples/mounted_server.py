"""The HTTP interface of the sessions server inside an aiohttp application of your own.

Start it with `python examples/mounted_server.py --port 8080 --data data`; `sessions env create --data data` makes a key.
"""

import argparse
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from agent import agents
from sessions_adapters.profiles import open_sessions
from sessions_server.app import HttpServer, build_server
from sessions_server.auth.tokens import SignedSessionTokens
from sessions_server.config import Config
from sessions_server.observability.metrics import Metrics

SERVER = web.AppKey("server", HttpServer)


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="a route of our own")


async def answer(request: web.Request) -> web.StreamResponse:
    return await request.app[SERVER].handle(request)


async def end_streams(app: web.Application) -> None:
    app[SERVER].context.streams.end()  # else open subscriptions hold the shutdown up


def build_app(data: Path) -> web.Application:
    async def keep_sessions(app: web.Application) -> AsyncIterator[None]:
        metrics = Metrics()
        config = Config.load()
        tokens = SignedSessionTokens(config.session_token_lifetime)  # each turn brings clients a fresh one
        async with open_sessions(
            "embedded", data=data, agents=agents, observer=metrics, session_tokens=tokens
        ) as sessions:
            app[SERVER] = build_server(sessions, config, metrics=metrics)
            yield
            await app[SERVER].close()  # finishes the changes whose clients have left

    app = web.Application()
    app.cleanup_ctx.append(keep_sessions)
    app.on_shutdown.append(end_streams)
    app.router.add_get("/hello", hello)
    app.router.add_route("*", "/{path:.*}", answer)  # the last route: it takes what is left
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The sessions server inside an application.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--data", type=Path, default=Path("data"))
    given = parser.parse_args()
    web.run_app(build_app(given.data), host="127.0.0.1", port=given.port, handler_cancellation=True)
