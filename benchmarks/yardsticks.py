"""What our server is compared with: the least an HTTP server in the same language has to do.

``bare`` reads the body and answers JSON. ``synced`` also commits it to SQLite, on the disk, before it answers: one
transaction for each request, on the event loop, as one would write it down at first.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from benchmarks.caller import HOST

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PATH: Final = "/realtime/v1/sessions/{session}/{io}/append"
_TABLE: Final = "create table record (id integer primary key, channel text, part text, body text)"
_INSERT: Final = "insert into record (channel, part, body) values (?, ?, ?)"

_FILL: Final = """
    insert into record (body)
    with recursive page (n) as (select 1 union all select n + 1 from page where n < 1200)
    select zeroblob(4000) from page
"""
"""Lets SQLite's write-ahead log grow to the length at which it is used again: as long as it grows, a commit costs more."""


def serve_bare(pipe: Connection[Any, Any]) -> None:
    """Serve without storing; send the port over *pipe*, end with it."""
    asyncio.run(_serve(_bare, pipe))


def serve_synced(pipe: Connection[Any, Any], path: Path) -> None:
    """Serve, storing at *path*; send the port over *pipe*, end with it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        database.execute(_TABLE)
        database.execute(_FILL)
        asyncio.run(_serve(_synced(database), pipe))


async def _bare(request: web.Request) -> web.StreamResponse:
    await request.read()
    return web.json_response({"ok": True, "seq": 0})


def _synced(database: sqlite3.Connection) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.text()
        values = (request.match_info["session"], request.headers["X-Part-Id"], body)
        stored = database.execute(_INSERT, values)  # without a `begin` each statement is a transaction
        return web.json_response({"ok": True, "seq": stored.lastrowid})

    return handle


async def _serve(handler: Handler, pipe: Connection[Any, Any]) -> None:
    app = web.Application()
    app.router.add_post(_PATH, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    pipe.send(runner.addresses[0][1])
    await _end_of(pipe)
    await runner.cleanup()


async def _end_of(pipe: Connection[Any, Any]) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(pipe.fileno())
