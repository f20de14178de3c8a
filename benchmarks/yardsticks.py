"""What our server is compared with: the least an HTTP server in the same language has to do.

``bare`` reads the body and answers JSON. It keeps no promise: no token is looked at, and nothing is stored. ``synced`` also commits it to SQLite, on the disk, before it answers: one
transaction for each request, on the event loop, as one would write it down at first. Both also hold idle streams.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import attrs
from aiohttp import web

from benchmarks.caller import HOST

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CHANNEL: Final = "/realtime/v1/sessions/{session}/{io}"
_TABLE: Final = "create table record (id integer primary key, channel text, part text, body text)"
_INSERT: Final = "insert into record (channel, part, body) values (?, ?, ?)"

_FILL: Final = """
    insert into record (body)
    with recursive page (n) as (select 1 union all select n + 1 from page where n < 1200)
    select zeroblob(4000) from page
"""
"""Lets SQLite's write-ahead log grow to the length at which it is used again: as long as it grows, a commit costs more."""


@attrs.frozen
class Address:
    """Where a yardstick listens, and which process it is."""

    port: int
    pid: int


def serve_bare(pipe: Connection[Any, Any]) -> None:
    """Serve without storing; send the address over *pipe*, end with it."""
    asyncio.run(_serve(_bare, pipe))


def serve_synced(pipe: Connection[Any, Any], path: Path) -> None:
    """Serve, storing at *path*; send the address over *pipe*, end with it."""
    with open_database(path) as database:
        asyncio.run(_serve(_synced(database), pipe))


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database whose statements are each on the disk when they are done."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        database.execute(_TABLE)
        database.execute(_FILL)
        yield database


def store(database: sqlite3.Connection, session: str, part: str, body: str) -> int:
    """Store a record; return its number."""
    return database.execute(_INSERT, (session, part, body)).lastrowid or 0


async def _stream(request: web.Request) -> web.StreamResponse:
    """Say that nothing is there, and wait for ever."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"event: ping\ndata: {}\n\n")
    await asyncio.Event().wait()
    return response


async def _bare(request: web.Request) -> web.StreamResponse:
    await request.read()
    return web.json_response({"ok": True, "seq": 0})


def _synced(database: sqlite3.Connection) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        seq = store(database, request.match_info["session"], request.headers["X-Part-Id"], await request.text())
        return web.json_response({"ok": True, "seq": seq})

    return handle


async def _serve(handler: Handler, pipe: Connection[Any, Any]) -> None:
    app = web.Application()
    app.router.add_post(f"{_CHANNEL}/append", handler)
    app.router.add_get(_CHANNEL, _stream)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    await serve_until_end(pipe, runner.addresses[0][1])
    await runner.cleanup()


async def serve_until_end(pipe: Connection[Any, Any], port: int) -> None:
    """Tell the address, and return when the pipe ends."""
    pipe.send(Address(port, os.getpid()))
    await _end_of(pipe)


async def _end_of(pipe: Connection[Any, Any]) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(pipe.fileno())
