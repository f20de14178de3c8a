"""Between a client and S2: passes requests on, and loses, spoils or delays what a test tells it to.

Speaks HTTP/2 without TLS to the client, which knows nothing else, and HTTP/1.1 to the server.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Any, Final

import aiohttp
import attrs
import h2.config
import h2.connection
import h2.events
import h2.exceptions
from yarl import URL


class Fault(Enum):
    """What happens to a request or its answer."""

    BUSY = "answered 503, not passed on"
    LIMITED = "answered 429, not passed on"
    TOO_LONG = "answered 408, not passed on"
    BROKEN = "passed on, answered 500"
    CUT_BEFORE = "connection cut, not passed on"
    CUT_AFTER = "passed on, connection cut"
    HALF = "passed on, connection cut in the middle of the answer"
    SILENT = "passed on, never answered"
    LATE = "passed on when the client has given up"
    FORBIDDEN = "answered 403, not passed on"


STATUSES: Final = {Fault.BUSY: 503, Fault.LIMITED: 429, Fault.TOO_LONG: 408, Fault.BROKEN: 500, Fault.FORBIDDEN: 403}
PASSED_ON: Final = frozenset({Fault.BROKEN, Fault.CUT_AFTER, Fault.HALF, Fault.SILENT})
HOP: Final = frozenset({"connection", "transfer-encoding", "keep-alive", "host", "content-length"})


@attrs.define
class Request:
    """What a client asks for."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytearray = attrs.field(factory=bytearray)

    @property
    def is_append(self) -> bool:
        return self.method == "POST" and self.path.endswith("/records")


@attrs.define(eq=False)
class Proxy:
    """Attributes: what a test sets and sees.

    Attributes:
        faults: What happens to the next appends, one after another.
        always: What happens to every append once those are used up.
        read_faults: What happens to the next readings, questions for the tail among them, one after another.
        conflicts: How many times the making of a stream is refused because somebody else makes it, too.
        answers: Answers of its own for a path: a JSON value.
        seen: Requests that came.
    """

    upstream: str
    port: int = 0
    faults: deque[Fault] = attrs.field(factory=deque)
    always: Fault | None = None
    read_faults: deque[Fault] = attrs.field(factory=deque)
    conflicts: int = 0
    answers: dict[str, Any] = attrs.field(factory=dict)
    seen: list[Request] = attrs.field(factory=list)
    ghosts: list[int] = attrs.field(factory=list)
    connections: set[Connection] = attrs.field(factory=set)
    passing: asyncio.Event = attrs.field(factory=asyncio.Event)
    client: aiohttp.ClientSession = attrs.field(init=False)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut all connections."""
        for connection in tuple(self.connections):
            connection.cut()

    def next_fault(self, request: Request) -> Fault | None:
        """Return what happens to *request*. The questions for a guard are appends that cannot be taken; they pass."""
        if request.method == "GET":
            return self.read_faults.popleft() if self.read_faults else None
        if not request.is_append or b"\x1a\x01?" in request.body:
            return None
        return self.faults.popleft() if self.faults else self.always

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        connection = Connection(self, writer)
        self.connections.add(connection)
        try:
            await connection.run(reader)
        finally:
            self.connections.discard(connection)
            connection.cut()

    async def pass_on(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        """Return the server's whole answer."""
        async with self.open(request) as answer:
            return answer.status, dict(answer.headers), await answer.read()

    def open(self, request: Request) -> Any:
        """Ask the server."""
        headers = {name: value for name, value in request.headers.items() if name[0] != ":" and name not in HOP}
        url = URL(self.upstream + request.path, encoded=True)
        body = bytes(request.body) or None
        return self.client.request(request.method, url, headers=headers, data=body)


@attrs.define(eq=False)
class Connection:
    """One client's connection."""

    proxy: Proxy
    writer: asyncio.StreamWriter
    h2: h2.connection.H2Connection = attrs.field(init=False)
    requests: dict[int, Request] = attrs.field(factory=dict)
    tasks: dict[int, asyncio.Task[None]] = attrs.field(factory=dict)
    given_up: dict[int, asyncio.Event] = attrs.field(factory=dict)
    window: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Take requests until the client leaves."""
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                for event in self.h2.receive_data(data):
                    self.handle(event)
                self.flush()

    def handle(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers: dict[str, str] = {str(name): str(value) for name, value in event.headers}
            self.requests[event.stream_id] = Request(headers[":method"], headers[":path"], headers)
        elif isinstance(event, h2.events.DataReceived):
            self.requests[event.stream_id].body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.given_up[event.stream_id] = asyncio.Event()
            self.tasks[event.stream_id] = asyncio.create_task(self.answer(event.stream_id))
        elif isinstance(event, h2.events.StreamReset):
            if event.stream_id in self.given_up:
                self.given_up[event.stream_id].set()
        elif isinstance(event, h2.events.WindowUpdated):
            self.window.set()

    async def answer(self, stream: int) -> None:
        """Answer a request, or not."""
        request = self.requests.pop(stream)
        self.proxy.seen.append(request)
        fault = self.proxy.next_fault(request)
        with suppress(ConnectionError, aiohttp.ClientError, h2.exceptions.ProtocolError):
            if request.path in self.proxy.answers:
                await self.send(stream, 200, {}, json.dumps(self.proxy.answers[request.path]).encode())
            elif self.proxy.conflicts and (request.method, request.path) == ("POST", "/v1/streams"):
                self.proxy.conflicts -= 1
                await self.send(stream, 409, {}, b'{"code":"transaction_conflict","message":"secret text"}')
            elif fault is None:
                await self.stream(stream, request)
            else:
                await self.fail(stream, request, fault)

    async def fail(self, stream: int, request: Request, fault: Fault) -> None:
        if fault is Fault.LATE:
            await self.given_up[stream].wait()
            await self.proxy.passing.wait()
            self.proxy.ghosts.append((await self.proxy.pass_on(request))[0])
            return
        status, headers, body = await self.proxy.pass_on(request) if fault in PASSED_ON else (0, {}, b"")
        if fault in STATUSES:
            await self.send(stream, STATUSES[fault], {}, b'{"code":"other","message":"secret text"}')
        elif fault is Fault.HALF:
            self.head(stream, status, headers)
            self.h2.send_data(stream, body[: len(body) // 2])
            self.flush()
        if fault in (Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.HALF):
            self.cut()

    async def stream(self, stream: int, request: Request) -> None:
        """Pass an answer on as it comes."""
        async with self.proxy.open(request) as answer:
            self.head(stream, answer.status, dict(answer.headers))
            async for chunk in answer.content.iter_any():
                await self.data(stream, chunk)
            self.h2.end_stream(stream)
            self.flush()

    async def send(self, stream: int, status: int, headers: dict[str, str], body: bytes) -> None:
        self.head(stream, status, headers)
        await self.data(stream, body)
        self.h2.end_stream(stream)
        self.flush()

    def head(self, stream: int, status: int, headers: dict[str, str]) -> None:
        kept = [(name.lower(), value) for name, value in headers.items() if name.lower() not in HOP]
        self.h2.send_headers(stream, [(":status", str(status)), *kept])
        self.flush()

    async def data(self, stream: int, data: bytes) -> None:
        while data:
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(data))
            if size <= 0:
                self.window.clear()
                await self.window.wait()
                continue
            self.h2.send_data(stream, data[:size])
            self.flush()
            data = data[size:]

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def cut(self) -> None:
        for task in self.tasks.values():
            if task is not asyncio.current_task():
                task.cancel()
        if self.writer.transport is not None:
            self.writer.transport.abort()


@asynccontextmanager
async def open_proxy(upstream: str) -> AsyncIterator[Proxy]:
    """Open a proxy before *upstream*, on a free port."""
    proxy = Proxy(upstream)
    async with aiohttp.ClientSession(auto_decompress=False) as proxy.client:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()
