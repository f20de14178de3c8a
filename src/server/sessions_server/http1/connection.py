"""Connections that are looked at every now and then, and the server that makes them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage

from sessions_server.connections.farewell import LINGER_SECONDS
from sessions_server.connections.places import Guest, Places, cut, is_delivered, unsent
from sessions_server.http1.intake import Intake, refusal_of
from sessions_server.http1.limits import Http1Limits
from sessions_server.http1.request import Request
from sessions_server.http1.watch import Step, Watch
from sessions_server.problems import HttpError, RequestTimeoutError

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Refuse = Callable[[HttpError], web.Response]
_LONGEST_ROUND: Final = 1.0
_LOOKS: Final = 4
"""So many times each is looked at within the shortest of the times that are watched."""
_SLICES: Final = 10
"""In so many steps a round looks at all, so that ten thousand idle connections hold up nobody."""


def spell_out(response: web.Response) -> bytes:
    """Return *response* as the bytes of an answer that ends its connection, for whom has not sent a whole request."""
    body = response.body
    assert isinstance(body, bytes)
    fields = {**response.headers, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _LastWords(web.Response):
    """An answer that does not get lost.

    Closing a socket with unread bytes takes what was sent along, so the rest of what is refused is taken for a moment, and dropped.
    """

    def __init__(self, response: web.Response, connection: Connection) -> None:
        super().__init__(body=response.body, status=response.status, headers=response.headers)
        self.force_close()
        self._connection = connection

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data)
        await self._connection.hear_out()


class Connection(web.RequestHandler, Guest):
    """One connection.

    ``peers`` is where it is found while it lives, and ``below`` what carries it, if that is not its own transport.

    Attributes:
        is_old: Whether it is to take no further request.
    """

    __slots__ = ("_below", "_intake", "_limits", "_peers", "_places", "_refuse", "_watch", "_wire", "is_old")

    def __init__(
        self,
        server: Server,
        below: asyncio.Transport | None,
        limits: Http1Limits,
        peers: set[Connection],
        places: Places,
        refuse: Refuse,
        **options: Any,
    ) -> None:
        super().__init__(server, **options)
        self._below, self._limits, self._peers, self._places, self._refuse = below, limits, peers, places, refuse
        self._intake = Intake(self._parser, limits, partial(places.leave, self))
        self._parser = cast(Any, self._intake)
        self.is_old = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        self._watch = Watch(self._limits, monotonic())
        self._peers.add(self)
        self._places.wait(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._peers.discard(self)
        self._places.leave(self)
        super().connection_lost(exc)
        del self._intake  # it holds the parser, which holds us: nobody looks for such circles often

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Make the answer to an error. What a client has sent wrong is not logged: there would be no end of it."""
        if isinstance(exc, HttpProcessingError):
            exc.__traceback__ = None  # a circle: a frame of it holds the error
            return _LastWords(self._refuse(refusal_of(exc, self._limits)), self)
        super().handle_error(request, status, exc, message)
        return _LastWords(self._refuse(HttpError()), self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write what is left of an answer. Nothing is under way then, unless the next request is there already."""
        done = await super().finish_response(request, resp, start_time)
        if not self._messages and self in self._peers:
            self._places.wait(self)
        return done

    def _process_keepalive(self) -> None:
        """End a connection that has been without requests for long, but not in the middle of a head: :meth:`look` gives that its time."""
        if self._intake.since is not None:
            self._next_keepalive_close_time = self._loop.time() + self._limits.head
        super()._process_keepalive()

    def make_place(self) -> bool:
        if not is_delivered(self._wire, self._below):
            return False
        self._peers.discard(self)
        cut(self._wire, self._below)
        return True

    async def hear_out(self) -> None:
        """Say that nothing more follows, and drop what still comes, until the client has closed or a second has passed."""
        self.close()
        if self._wire.can_write_eof():
            with suppress(OSError):  # the client has broken off, which nobody has noticed yet
                self._wire.write_eof()
        await asyncio.sleep(LINGER_SECONDS)

    def look(self, now: float) -> None:
        """Do what time demands. Nothing does of one that is lost."""
        if self not in self._peers:
            return
        self.is_old = self._watch.is_old(now)
        backlog = unsent(self._wire, self._below)
        request = self._current_request
        writer = None if request is None else request.writer
        taken = (id(writer), (0 if writer is None else writer.output_size) - backlog)
        is_waiting = self._waiter is not None and not self._waiter.done()
        since = self._intake.since if is_waiting else None
        if is_waiting and not backlog:
            self._places.wait(self)
        match self._watch.look(now, head_since=since, backlog=backlog, taken=taken):
            case Step.REFUSE:
                self._wire.write(spell_out(self._refuse(RequestTimeoutError())))
                self.force_close()
            case Step.GIVE_UP:
                cut(self._wire, self._below)
            case Step.NOTHING:
                pass


class Server(web.Server):
    """Makes connections, and looks at them while there are any.

    Attributes:
        open: Those that live.
    """

    def __init__(
        self, handle: Handle, refuse: Refuse, limits: Http1Limits, places: Places, is_ending: Callable[[], bool]
    ) -> None:
        super().__init__(
            handle,
            request_factory=self._request,
            # Without cancellation a subscription lives on after its reader has left.
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.idle,
            max_line_size=limits.url,
            max_field_size=limits.field,
            max_headers=limits.headers,
        )
        self.open: set[Connection] = set()
        self._refuse, self._limits, self._places, self._is_ending = refuse, limits, places, is_ending
        shortest = min(limits.head, limits.slow_write, limits.age)
        self._pause = min(_LONGEST_ROUND, shortest / _LOOKS) / _SLICES
        self._due: list[Connection] = []
        self._timer: asyncio.TimerHandle | None = None

    def make(self, below: asyncio.Transport | None) -> Connection:
        """Make one; *below* is what carries it, if that is not its own transport."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._pause, self._look)
        options = {"loop": self._loop, **self._kwargs}
        return Connection(self, below, self._limits, self.open, self._places, self._refuse, **options)

    def _look(self) -> None:
        """Look at a slice of all connections."""
        self._timer = self._loop.call_later(self._pause, self._look) if self.open else None
        self._due = self._due or list(self.open)
        slice_from = max(len(self._due) - math.ceil(len(self.open) / _SLICES), 0)
        due, self._due = self._due[slice_from:], self._due[:slice_from]
        now = monotonic()
        for connection in due:
            connection.look(now)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        assert isinstance(protocol, Connection)
        if protocol.is_old or self._is_ending():
            message = message._replace(should_close=True)
        return Request(message, payload, protocol, writer, task, self._loop)
