"""A client that speaks HTTP/2, politely with h2 or, frame by frame, as badly as a test wants."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import attrs
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Decoder, Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE: Final = 20.0


class ResetError(Exception):
    """The server broke the stream off; the argument is the error code."""


@attrs.frozen
class Answer:
    """An answer, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@attrs.define(eq=False)
class ClientStream:
    """One request and what comes back."""

    _client: Http2Client
    id: int
    _headers: asyncio.Future[dict[str, str]] = attrs.field(factory=lambda: asyncio.get_running_loop().create_future())
    _pieces: asyncio.Queue[bytes | None] = attrs.field(factory=asyncio.Queue)
    informational: list[int] = attrs.field(factory=list)
    reset_code: int | None = None
    received: int = 0
    is_over: bool = False
    is_cut: bool = False

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send a piece of the body, as the server's window allows."""
        await self._client.send(self.id, data, end=end)

    async def end(self) -> None:
        """End the body."""
        await self.send(b"", end=True)

    def reset(self, code: int = 8) -> None:
        """Give the request up."""
        self._client.connection.reset_stream(self.id, code)
        self._client.flush()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return status and headers as soon as they are there."""
        async with asyncio.timeout(PATIENCE):
            headers = await asyncio.shield(self._headers)
        return int(headers[":status"]), headers

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the answer's body as it comes.

        Raises:
            ResetError: It was broken off.
        """
        while (piece := await self.piece()) is not None:
            yield piece

    async def piece(self) -> bytes | None:
        """Return the next piece, or None at the end."""
        async with asyncio.timeout(PATIENCE):
            piece = await self._pieces.get()
        if piece is None and self.is_cut:
            raise ResetError(self.reset_code)
        return piece

    async def answer(self) -> Answer:
        """Read the whole answer."""
        status, headers = await self.head()
        return Answer(status, headers, b"".join([piece async for piece in self.pieces()]))

    def take_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if not self._headers.done():
            self._headers.set_result({name.decode(): value.decode() for name, value in headers})

    def take(self, data: bytes | None) -> None:
        self.received += len(data or b"")
        self.is_over = data is None
        self._pieces.put_nowait(data)

    def break_off(self, code: int) -> None:
        if code >= 0:
            self.reset_code = code
        if self.is_over:
            return
        self.is_cut = True
        if not self._headers.done():
            self._headers.set_exception(ResetError(code))
            self._headers.exception()  # not everybody asks
        self.take(None)


@attrs.define(eq=False)
class Http2Client:
    """One connection.

    Attributes:
        goaways: (last stream id, error code, words) of each GOAWAY that came.
        gives_window: Whether what has come is acknowledged by itself, so that the server may send on.
        pings: How often the server has asked whether anybody is there.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    connection: H2Connection
    goaways: list[tuple[int, int, bytes]] = attrs.field(factory=list)
    gives_window: bool = True
    pings: int = 0
    _streams: dict[int, ClientStream] = attrs.field(factory=dict)
    _room: asyncio.Event = attrs.field(factory=asyncio.Event)
    closed: asyncio.Event = attrs.field(factory=asyncio.Event)
    _pong: asyncio.Event = attrs.field(factory=asyncio.Event)
    _buffer: bytes = b""

    def begin(
        self, method: str, path: str, headers: Sequence[tuple[str, str]] = (), *, end: bool = False
    ) -> ClientStream:
        """Send a request's headers."""
        stream = ClientStream(self, self.connection.get_next_available_stream_id())
        self._streams[stream.id] = stream
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "localhost")]
        self.connection.send_headers(stream.id, [*pseudo, *headers], end_stream=end)
        self.flush()
        return stream

    async def call(self, method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> Answer:
        """Make a request and read its answer."""
        stream = self.begin(method, path, headers, end=not body)
        if body:
            await stream.send(body, end=True)
        return await stream.answer()

    async def send(self, stream_id: int, data: bytes, *, end: bool) -> None:
        left = memoryview(data)
        async with asyncio.timeout(PATIENCE):
            while left:
                self._room.clear()
                room = min(
                    self.connection.local_flow_control_window(stream_id), self.connection.max_outbound_frame_size
                )
                if room <= 0:
                    await self._room.wait()
                    continue
                self.connection.send_data(stream_id, bytes(left[:room]))
                left = left[room:]
                self.flush()
                await self.writer.drain()
        if end:
            self.connection.end_stream(stream_id)
            self.flush()

    async def call_ping(self) -> None:
        """Wait until the server has taken everything that was sent so far, and has said what it has to say now."""
        self._pong.clear()
        self.connection.ping(b"are you?")
        self.flush()
        async with asyncio.timeout(PATIENCE):
            await self._pong.wait()

    def give(self, stream_id: int, size: int) -> None:
        """Let the server send so much more: on the connection, and on a stream if it is not 0."""
        self.connection.increment_flow_control_window(size)
        if stream_id:
            self.connection.increment_flow_control_window(size, stream_id)
        self.flush()

    def flush(self) -> None:
        """Send what the protocol has to say."""
        self.writer.write(self.connection.data_to_send())

    async def read_for_ever(self) -> None:
        """Take what comes until the server closes."""
        with suppress(ConnectionError):
            while data := await self.reader.read(65_536):
                for event in self._parse(data):
                    self._take(event)
                self.flush()
                self._room.set()
        self.closed.set()
        for stream in self._streams.values():
            stream.break_off(-1)

    def _parse(self, data: bytes) -> list[events.Event]:
        """Let GOAWAY pass by h2, which would not let answers come in after it."""
        self._buffer += data
        found: list[events.Event] = []
        while len(self._buffer) >= 9 and len(self._buffer) >= (end := 9 + int.from_bytes(self._buffer[:3])):
            raw, self._buffer = self._buffer[:end], self._buffer[end:]
            if raw[3] == GoAwayFrame.type:
                self.goaways.append((int.from_bytes(raw[9:13]), int.from_bytes(raw[13:17]), raw[17:]))
            else:
                found += self.connection.receive_data(raw)
        return found

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.PingAckReceived):
            self._pong.set()
        elif isinstance(event, events.PingReceived):
            self.pings += 1
        elif (stream := self._streams.get(getattr(event, "stream_id", None) or 0)) is not None:
            self._take_of(stream, event)

    def _take_of(self, stream: ClientStream, event: events.Event) -> None:
        if isinstance(event, events.ResponseReceived):
            stream.take_headers(event.headers or ())
        elif isinstance(event, events.InformationalResponseReceived):
            stream.informational.append(int(dict(event.headers or ())[b":status"]))
        elif isinstance(event, events.DataReceived):
            if self.gives_window:
                self.connection.acknowledge_received_data(event.flow_controlled_length or 0, stream.id)
            if event.data:
                stream.take(event.data)
        elif isinstance(event, events.StreamEnded):
            stream.take(None)
        elif isinstance(event, events.StreamReset):
            stream.break_off(int(event.error_code or 0))


@asynccontextmanager
async def connect(
    port: int,
    *,
    window: int = 65_535,
    tls: ssl.SSLContext | None = None,
    piecewise: bool = False,
    flush: bool = True,
) -> AsyncGenerator[Http2Client]:
    """Open a connection.

    Args:
        port: Of the server, on this machine.
        window: How much of one answer the server may send before it is acknowledged.
        tls: Speak TLS.
        piecewise: Send the first bytes one by one.
        flush: Send them before there is a request.
    """
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
    )
    connection = H2Connection(H2Configuration(client_side=True))
    connection.local_settings.initial_window_size = window
    connection.local_settings.acknowledge()
    connection.initiate_connection()
    client = Http2Client(reader, writer, connection)
    if piecewise:
        for byte in connection.data_to_send():
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
    if flush:
        client.flush()
    reading = asyncio.create_task(client.read_for_ever())
    try:
        yield client
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@attrs.define(eq=False)
class RawClient:
    """Sends any frames, and sorts what comes back."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    encoder: Encoder = attrs.field(factory=Encoder)

    def send(self, *frames: Frame | bytes) -> None:
        """Send frames."""
        self.writer.write(b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames))

    def request(self, stream_id: int, path: str = "/healthz", *, end: bool = True, **more: str) -> HeadersFrame:
        """Return the frame that begins a request."""
        fields = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "x"), *more.items()]
        return HeadersFrame(
            stream_id, self.encoder.encode(fields), flags=["END_HEADERS", *(["END_STREAM"] if end else [])]
        )

    async def ask(self, fields: Sequence[tuple[bytes, bytes]]) -> Answer:
        """Make one request without a body, of whatever header fields, and read its answer."""
        self.send(HeadersFrame(1, self.encoder.encode(fields), flags=["END_HEADERS", "END_STREAM"]))
        decoder, headers, body = Decoder(), dict[str, str](), b""
        async for frame in self.frames():
            if isinstance(frame, HeadersFrame):
                headers = {str(name): str(value) for name, value in decoder.decode(frame.data)}
            elif isinstance(frame, DataFrame):
                body += frame.data
            if isinstance(frame, GoAwayFrame | RstStreamFrame):
                raise ResetError(frame.error_code)
            if "END_STREAM" in frame.flags:
                return Answer(int(headers[":status"]), headers, body)
        raise ResetError(-1)

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield the frames that come until the server closes."""
        left = b""
        while data := await self._read():
            left += data
            while len(left) >= 9 and len(left) >= (end := 9 + int.from_bytes(left[:3])):
                frame, _ = Frame.parse_frame_header(memoryview(left[:9]))
                frame.parse_body(memoryview(left[9:end]))
                left = left[end:]
                yield frame

    async def _read(self) -> bytes:
        """Return what has come, also when the connection broke afterwards, which asyncio would keep from us."""
        try:
            return await self.reader.read(65_536)
        except ConnectionError:
            data = bytes(self.reader._buffer)  # type: ignore[attr-defined]
            self.reader._buffer.clear()  # type: ignore[attr-defined]
            return data

    async def goodbye(self) -> tuple[int, bytes] | None:
        """Read to the end; return the last GOAWAY's code and words, or None if there was none."""
        found = None
        async with asyncio.timeout(PATIENCE):
            async for frame in self.frames():
                if isinstance(frame, GoAwayFrame):
                    found = frame.error_code, frame.additional_data
        return found


@asynccontextmanager
async def connect_raw(port: int, *, greet: bool = True, room: int | None = None) -> AsyncGenerator[RawClient]:
    """Open a connection, and send the preface and empty settings unless the test wants to.

    Args:
        port: Of the server, on this machine.
        greet: Whether to send them.
        room: About how much may come before it is read.
    """
    raw = socket.socket()
    raw.setblocking(False)
    if room is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=room or 65_536)
    client = RawClient(reader, writer)
    if greet:
        writer.write(PREFACE)
        client.send(SettingsFrame(0))
    try:
        yield client
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
