"""Snapshots and transcripts, which this server does not keep; the clients do without."""

from __future__ import annotations

from aiohttp import web

from sessions_server.problems import NotBuiltError
from sessions_server.route import Call


async def missing(_: Call) -> web.StreamResponse:
    """Say that there is none."""
    raise NotBuiltError
