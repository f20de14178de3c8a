"""Asking a server, as fast as it answers: over one connection that is kept."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from harness.http2 import Http2Client

PATIENCE = 20.0


@attrs.frozen(kw_only=True)
class Request:
    """What is asked, but for the credential.

    Attributes:
        is_stream: A good answer has no end of its own: its reader leaves as soon as it has begun.
    """

    method: str
    target: str
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    is_stream: bool = False


@attrs.frozen
class Reply:
    """What came back, with the names of the headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed; None if it is no JSON."""
        return json.loads(self.body) if "json" in self.headers.get("content-type", "") and self.body else None


class Asker(Protocol):
    """Asks with one version of HTTP."""

    @abstractmethod
    async def ask(self, request: Request, credential: str | None) -> Reply:
        """Make *request* with *credential* as its ``Authorization`` and read the answer."""


@attrs.define(eq=False)
class Http1Asker(Asker):
    """Asks over HTTP/1.1."""

    port: int
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def ask(self, request: Request, credential: str | None) -> Reply:
        async with asyncio.timeout(PATIENCE):
            if self._writer is None or self._reader is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
            self._writer.write(_encode(request, credential))
            status, headers = _parse_head(await self._reader.readuntil(b"\r\n\r\n"))
            is_left = request.is_stream and status == 200
            body = b"" if is_left else await self._read_body(request, status, headers)
        if is_left or headers.get("connection") == "close":
            await self.leave()
        return Reply(status, headers, body)

    async def leave(self) -> None:
        """Close the connection; the next question opens another one."""
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()
        self._reader = self._writer = None

    async def _read_body(self, request: Request, status: int, headers: Mapping[str, str]) -> bytes:
        assert self._reader is not None
        if request.method == "HEAD" or status in (204, 304):
            return b""
        if headers.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(headers.get("content-length", 0)))
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()
        return body


@attrs.define(eq=False)
class Http2Asker(Asker):
    """Asks over HTTP/2."""

    connection: Http2Client

    async def ask(self, request: Request, credential: str | None) -> Reply:
        headers = [(name.lower(), value) for name, value in request.headers.items()]
        if credential is not None:
            headers.append(("authorization", credential))
        stream = self.connection.begin(request.method, request.target, headers, end=not request.body)
        if request.body:
            await stream.send(request.body, end=True)
        status, found = await stream.head()
        if request.is_stream and status == 200:
            stream.reset()
            return Reply(status, found, b"")
        answer = await stream.answer()
        return Reply(answer.status, answer.headers, answer.body)


def _encode(request: Request, credential: str | None) -> bytes:
    sent = {"Host": "localhost", **request.headers}
    if credential is not None:
        sent["Authorization"] = credential
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        sent["Content-Length"] = str(len(request.body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"{request.method} {request.target} HTTP/1.1\r\n{lines}\r\n".encode() + request.body


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}
