"""Requests written to a bare connection, as slowly and as badly as a test wants, and the answers that are read from it."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from harness.in_process import ROOT_KEY, RawAnswer, Site, open_site
from sessions_adapters.profiles import MEMORY
from sessions_server.config import Config

PATIENCE: Final = 20
"""Seconds, on a machine that has much else to do."""
AUTHORIZED: Final = f"Authorization: Bearer {ROOT_KEY}"
GET: Final = "GET /healthz HTTP/1.1\r\nHost: x\r\n"
APPEND: Final = f"POST /realtime/v1/sessions/chat-1/in/append HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n"
PROTECTED: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""What every answer tells browsers."""


@asynccontextmanager
async def served(tmp_path: Path, **settings: Any) -> AsyncIterator[Site]:
    """Serve with other *settings* than the defaults; nothing here depends on a store."""
    async with open_site(MEMORY, tmp_path, Config(**settings)) as site:
        yield site


@asynccontextmanager
async def sent(
    site: Site, text: str | bytes, *, room: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection and send *text*; *room* is about how much may come before it is read."""
    raw = socket.socket()
    raw.setblocking(False)
    if room is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", site.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=room or 2**16)
    try:
        writer.write(text.encode() if isinstance(text, str) else text)
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def until_end(reader: asyncio.StreamReader) -> None:
    """Wait until the server has closed."""
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""


async def said(reader: asyncio.StreamReader) -> RawAnswer:
    """Read one answer."""
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
    return RawAnswer(int(head[0].split()[1]), headers, body)


def check(answer: RawAnswer, status: int, code: str) -> None:
    """One shape for every error, with an id, and without a word of what was sent or of a driver."""
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert answer.json.keys() <= {"ok", "error", "code", "field"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.headers["server"] == "sessions"
    assert answer.headers.items() >= {**PROTECTED, "cache-control": "no-store"}.items()
    assert "secret" not in answer.body.decode()


def metric(site: Site, name: str) -> int:
    """Read one number, without a connection."""
    found = re.search(rf"^{name} (\S+)$", site.server.context.metrics.render().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


async def until_metric(site: Site, name: str, count: int) -> None:
    """Wait until a number is *count*."""
    deadline = time.monotonic() + PATIENCE
    while metric(site, name) != count:
        assert time.monotonic() < deadline, (name, metric(site, name), count)
        await asyncio.sleep(0.01)
