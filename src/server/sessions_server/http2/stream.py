"""One request over HTTP/2 and its answer, with flow control both ways.

Window is given back only for what the handler has taken out, so a client cannot send faster than it is read; and a write
returns when its bytes are on their way, so a handler cannot produce faster than the client reads.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol

import attrs
from h2.errors import ErrorCodes

from sessions_server.exchange import BodyCutError, Exchange

Headers = Iterable[tuple[bytes, bytes]]
_DISMISS_SECONDS: Final = 0.5
_HEADER_OVERHEAD: Final = 32
_CONTROL: Final = re.compile(r"[\r\n\0]")


class Wire(Protocol):
    """What a stream needs of its connection."""

    __slots__ = ()

    @property
    @abstractmethod
    def peer(self) -> str | None:
        """The address at its other end; None if that is not known."""

    @abstractmethod
    def send_headers(self, stream_id: int, headers: list[tuple[str, str]]) -> None:
        """Send headers: an informational answer, or the one that counts."""

    @abstractmethod
    def has_room(self, stream_id: int) -> bool:
        """Whether the stream may send something now."""

    @abstractmethod
    async def turn(self, stream_id: int, want: int) -> int:
        """Wait until the stream may send, behind those that wait already; return how many bytes, at least one.

        Args:
            stream_id: Its number.
            want: How much it has to send.

        Raises:
            ConnectionResetError: The client makes no room for them, or is gone.
        """

    @abstractmethod
    def send_data(self, stream_id: int, data: memoryview) -> None:
        """Send what :meth:`turn` allowed."""

    @abstractmethod
    def end(self, stream_id: int) -> None:
        """Say that the answer is complete."""

    @abstractmethod
    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """Break the stream off."""

    @abstractmethod
    def give_back(self, stream_id: int, size: int) -> None:
        """Let the client send so many bytes more."""


@attrs.define(eq=False)
class Stream(Exchange):
    """An exchange over HTTP/2.

    Attributes:
        id: The stream's number.
        scheme: ``http`` or ``https``, as the client says.
        fields: The headers as they came: several of one name are several here.
        header_bytes: What they took, counted as the protocol does.
        is_answered: Whether the answer has begun.
        is_open: Whether anything can still be sent.
        is_body_complete: Whether the body has come to its end, read or not.
    """

    _wire: Wire
    id: int
    method: str
    path: str
    query: str
    scheme: str
    fields: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    header_bytes: int
    is_answered: bool = attrs.field(init=False, default=False)
    is_open: bool = attrs.field(init=False, default=True)
    is_body_complete: bool = attrs.field(init=False, default=False)
    _received: bytearray = attrs.field(init=False, factory=bytearray)
    _arrival: asyncio.Future[None] | None = attrs.field(init=False, default=None)

    @property
    def peer(self) -> str | None:
        return self._wire.peer

    async def body(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def read(self) -> bytes:
        """Return what has come of the body, waiting for something if need be; nothing at its end.

        Raises:
            BodyCutError: The client has broken it off.
        """
        if not self._received and not self.is_body_complete:
            self._invite()
        while not self._received:
            if self.is_body_complete:
                return b""
            self._check_body()
            await self._arrive()
        data = bytes(self._received)
        self._received.clear()
        self._wire.give_back(self.id, len(data))
        return data

    @property
    def is_read(self) -> bool:
        """Whether the body has been read to its end."""
        return self.is_body_complete and not self._received

    @property
    def has_room(self) -> bool:
        """Whether something can be written now, without waiting."""
        return self.is_open and self._wire.has_room(self.id)

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.answer(status, headers.items())

    def answer(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send status and headers, whose names are lower case.

        Raises:
            ConnectionResetError: The client is gone.
            ValueError: A header could be taken for several by what passes it on as HTTP/1.1.
        """
        self._check_open()
        fields = [(":status", str(status)), *headers]
        if any(_CONTROL.search(value) for _, value in fields):
            raise ValueError("a header with a line break or U+0000")
        self.is_answered = True
        self._wire.send_headers(self.id, fields)

    async def write(self, data: bytes) -> None:
        self._check_open()
        left = memoryview(data)
        while left:
            try:
                room = await self._wire.turn(self.id, len(left))
            except ConnectionResetError:
                self.break_off(ErrorCodes.CANCEL)
                raise
            self._wire.send_data(self.id, left[:room])
            left = left[room:]

    def finish(self) -> None:
        """End the answer."""
        if self.is_open:
            self.is_open = False
            self._wire.end(self.id)
            self._forget_body()

    async def dismiss(self) -> None:
        """After the answer's end: let the client send the rest of a body that nobody reads for a moment, then stop it.

        Some clients, such as older releases of curl, lose an answer that has just come if they are stopped at once.
        """
        try:
            async with asyncio.timeout(_DISMISS_SECONDS):
                while not self.is_body_complete:
                    await self._arrive()
        except TimeoutError:
            self._wire.reset(self.id, ErrorCodes.NO_ERROR)

    def break_off(self, code: ErrorCodes) -> None:
        """Leave a cut answer behind."""
        if self.is_open:
            self.is_open = False
            self._wire.reset(self.id, code)
            self._forget_body()

    def fail(self) -> None:
        """Say that something went wrong: with a status if there is none yet, else by leaving a cut answer behind."""
        if self.is_open and not self.is_answered:
            self.answer(500, [("content-length", "0")])
            self.finish()
        else:
            self.break_off(ErrorCodes.INTERNAL_ERROR)

    def receive(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self.is_open:
            self._received += data
            self._wake()
        else:
            self._wire.give_back(self.id, len(data))

    def complete(self) -> None:
        """Take note of the body's end."""
        self.is_body_complete = True
        self._wake()

    def lose(self) -> None:
        """Take note that the client has reset the stream, or is gone."""
        self.is_open = False
        self._forget_body()
        self._wake()

    def _forget_body(self) -> None:
        """Drop what nobody will read; other streams need its part of the connection's window."""
        if self._received:
            self._wire.give_back(self.id, len(self._received))
            self._received.clear()

    def _invite(self) -> None:
        """Ask for the body that the client holds back until it knows that it is wanted."""
        if not self.is_answered and self.is_open and self.headers.get("expect", "").lower() == "100-continue":
            self._wire.send_headers(self.id, [(":status", "100")])

    async def _arrive(self) -> None:
        """Wait until something comes: a piece of the body, or its end."""
        self._arrival = asyncio.get_running_loop().create_future()
        await self._arrival

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _check_body(self) -> None:
        if not self.is_open:
            raise BodyCutError("the client has broken the request off")

    def _check_open(self) -> None:
        if not self.is_open:
            raise ConnectionResetError("the client is gone")


Answer = Callable[[Stream], Awaitable[None]]
"""Answers a stream; the answer ends when it returns."""


def open_stream(wire: Wire, stream_id: int, headers: Headers) -> Stream | None:
    """Make the stream of a request that ``h2`` has found well-formed; None if it has no path (``CONNECT``)."""
    pseudo: dict[bytes, str] = {}
    fields: list[tuple[str, str]] = []
    header_bytes = 0
    for name, value in headers:
        header_bytes += len(name) + len(value) + _HEADER_OVERHEAD
        text = value.decode("utf-8", "surrogateescape")
        if name.startswith(b":"):
            pseudo[name] = text
        else:
            fields.append((name.decode("latin-1"), text))
    if (authority := pseudo.get(b":authority")) is not None:
        fields = [("host", authority), *(field for field in fields if field[0] != "host")]
    target = pseudo.get(b":path")
    if target is None:
        return None
    path, _, query = target.partition("#")[0].partition("?")
    return Stream(
        wire=wire,
        id=stream_id,
        method=pseudo[b":method"],
        path=path,
        query=query,
        scheme=pseudo.get(b":scheme", "http"),
        fields=tuple(fields),
        headers=dict(fields),
        header_bytes=header_bytes,
    )
