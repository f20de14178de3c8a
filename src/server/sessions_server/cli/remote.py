"""A server, as the command line calls it: requests that are made once, appends that are repeated, subscriptions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import Any, Final, TypeVar
from urllib.parse import quote

import aiohttp
import attrs
import msgspec
from yarl import URL

from sessions_core.domain.channel import Batch, Io
from sessions_core.domain.json_values import as_object
from sessions_core.errors import SessionsError
from sessions_server.cli.events import DONE, Frame, FrameReader, read_batch
from sessions_server.cli.shapes import Appended
from sessions_server.config import ClientConfig

T = TypeVar("T")

SESSIONS: Final = "/api/v1/sessions"
WINDOW_SECONDS: Final = 60
REPEAT_AFTER: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before each repetition of a call whose outcome is unknown."""
REPEAT_WITHIN: Final = 30.0
"""Seconds after which a call is not repeated any more; with the last one's own time, a minute in all."""
_CALL: Final = aiohttp.ClientTimeout(total=30, sock_connect=10)
_STREAM: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WINDOW_SECONDS + 15)
_MOST_DIGITS: Final = 16
_TRANSIENT: Final = frozenset({429, 500, 502, 503, 504})


@attrs.define(eq=False)
class NoKeyError(SessionsError):
    """Nobody said which key to show to the server."""

    @property
    def message(self) -> str:
        return (
            "there is no key: set SESSIONS_KEY, or name the file that holds it with --key-file. "
            "Where the server's data is, `sessions env list --show-keys` shows its keys"
        )


@attrs.define(eq=False)
class UnreachableError(SessionsError):
    """No connection came about, so nothing has been sent."""

    url: str
    reason: str

    @property
    def message(self) -> str:
        return (
            f"no server at {self.url} ({self.reason}): start one with `sessions serve` or `make serve`, "
            "or name another with --url or SESSIONS_URL"
        )


@attrs.define(eq=False)
class LostError(SessionsError):
    """The connection broke, or no answer came in time; what was sent may have been carried out."""

    url: str
    reason: str

    @property
    def message(self) -> str:
        return f"the server at {self.url} has gone ({self.reason}); what was asked may or may not have been done"


@attrs.define(eq=False)
class RefusedError(SessionsError):
    """The server's answer is an error."""

    url: str
    status: int
    answer: Mapping[str, Any] | None
    headers: Mapping[str, str]

    @property
    def message(self) -> str:
        if self.answer is None or not isinstance(self.answer.get("error"), str):
            return f"{self.url} answered {self.status}{self._elsewhere}, as no sessions server does; see --url"
        told = [f"{self.answer.get('code', self.status)}"]
        if (request_id := self.headers.get("X-Request-Id")) is not None:
            told.append(f"request {request_id}")
        return f"{self.answer['error']} ({', '.join(told)}){self._hint}"

    @property
    def is_not_found(self) -> bool:
        """Whether the thing does not exist; without a code it is the server that is another one."""
        return self.status == 404 and self.answer is not None and "code" in self.answer

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed a little later."""
        return self.status in _TRANSIENT or self.headers.get("x-should-retry") == "true"

    @property
    def _elsewhere(self) -> str:
        return f" and leads to {self.headers['Location']}" if "Location" in self.headers else ""

    @property
    def _hint(self) -> str:
        return "; `sessions env list --show-keys` shows the keys" if self.status == 401 else ""


def session_path(name: str, *more: str) -> str:
    """Return the path of a session, or of something below it."""
    return "/".join((SESSIONS, quote(name, safe=""), *more))


def channel_path(name: str, io: Io, *more: str) -> str:
    """Return the path of a channel, or of something below it."""
    return "/".join(("/realtime/v1/sessions", quote(name, safe=""), io, *more))


@attrs.define(eq=False)
class Subscription:
    """One connection on which a channel is followed.

    Attributes:
        gap: The first kept seq, if records between the one named and it are no longer kept.
        is_settled: Whether the channel ends with a completed turn, if that was asked.
    """

    gap: int | None
    is_settled: bool
    _remote: Remote
    _response: aiohttp.ClientResponse
    _frames: FrameReader = attrs.field(init=False, factory=FrameReader)
    _is_over: bool = attrs.field(init=False, default=False)
    _trouble: LostError | None = attrs.field(init=False, default=None)

    async def next(self) -> list[Batch] | None:
        """Return what comes next, or None once the server has ended the stream. Pings are batches without records.

        Raises:
            LostError: The connection broke, or the server told of trouble. What came before has been returned.
        """
        if self._trouble is not None:
            raise self._trouble
        if self._is_over:
            return None
        with self._remote.translating():
            piece = await self._response.content.readany()
        self._is_over = not piece
        return list(self._read(piece))

    def _read(self, piece: bytes) -> Iterator[Batch]:
        for frame in self._frames.feed(piece):
            if frame.data == DONE:
                self._is_over = True
                return
            try:
                yield _batch_in(frame)
            except ValueError as error:
                self._trouble = LostError(self._remote.url, str(error))
                return


def _batch_in(frame: Frame) -> Batch:
    if frame.event == "error":
        message = f"it says {frame.data}"
        raise ValueError(message)
    return read_batch(frame)


@attrs.define(eq=False)
class Remote:
    """One server and the key that is shown to it."""

    url: str
    _http: aiohttp.ClientSession

    @classmethod
    @asynccontextmanager
    async def connect(cls, config: ClientConfig) -> AsyncGenerator[Remote]:
        """Open a client for the block. Nothing is sent yet.

        Raises:
            NoKeyError: The configuration has no key.
        """
        if config.key is None:
            raise NoKeyError
        headers = {"Authorization": f"Bearer {config.key}"}
        async with aiohttp.ClientSession(headers=headers, timeout=_CALL) as http:
            yield cls(config.url, http)

    async def get(self, path: str, shape: type, query: Mapping[str, str] | None = None) -> Any:
        """Read something; return the answer's JSON, which has that shape.

        Raises:
            UnreachableError: No connection.
            LostError: No answer.
            RefusedError: An answer that is an error, or of another shape.
        """
        return await self._call("GET", path, shape, query=query)

    async def post(self, path: str, body: Any, shape: type, headers: Mapping[str, str] | None = None) -> Any:
        """Do something that may be done twice without harm, and repeat it while its outcome is unknown. See :meth:`get`."""
        text = body if isinstance(body, str) else json.dumps(body)
        return await repeated(lambda: self._call("POST", path, shape, body=text, headers=headers))

    async def append(self, name: str, io: Io, text: str, part_id: str) -> int:
        """Append *text*; return its seq. The part id makes repetitions harmless. See :meth:`get`."""
        appended: Appended = await self.post(channel_path(name, io, "append"), text, Appended, {"X-Part-Id": part_id})
        return appended["seq"]

    @asynccontextmanager
    async def subscribe(
        self, name: str, io: Io, after: int | None, *, peek_settled: bool = False
    ) -> AsyncGenerator[Subscription]:
        """Follow a channel after seq *after*, from its start if that is None. See :meth:`get`."""
        headers = {"Accept": "text/event-stream", "Timeout-Seconds": str(WINDOW_SECONDS)}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        if peek_settled:
            headers["X-Peek-Settled"] = "1"
        with self.translating():
            response = await self._http.get(
                self._target(channel_path(name, io)), headers=headers, timeout=_STREAM, allow_redirects=False
            )
        async with response:
            if response.status != 200 or response.content_type != "text/event-stream":
                raise self._refusal(response, await self._body(response))
            settled = response.headers.get("X-Session-Settled") == "true"
            yield Subscription(self._gap(response), settled, self, response)

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Turn the troubles of the network inside the block into our errors."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(self.url, _reason(error.os_error)) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise UnreachableError(self.url, "no answer in 10 seconds") from error
        except TimeoutError as error:
            raise LostError(self.url, "no answer in time") from error
        except UnicodeError as error:  # what the resolver says of empty and of very long parts
            raise UnreachableError(self.url, "this is no host's name") from error
        except (aiohttp.ClientError, OSError) as error:
            raise LostError(self.url, str(error) or type(error).__name__) from error

    async def _call(
        self,
        method: str,
        path: str,
        shape: type,
        *,
        query: Mapping[str, str] | None = None,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        sent = {"Content-Type": "application/json", **(headers or {})}
        data = None if body is None else body.encode()
        target = self._target(path).update_query(query or {})
        with self.translating():
            async with self._http.request(method, target, data=data, headers=sent, allow_redirects=False) as response:
                answer = await self._body(response)
        if response.status >= 300:
            raise self._refusal(response, answer)
        try:
            msgspec.convert(answer, shape)
        except (msgspec.ValidationError, RecursionError):
            raise self._refusal(response, None) from None
        return answer

    def _target(self, path: str) -> URL:
        return URL(self.url + path, encoded=True)

    async def _body(self, response: aiohttp.ClientResponse) -> Any:
        """Return the answer's JSON, or None if it is none."""
        with self.translating():
            content = await response.read()
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            return None

    def _gap(self, response: aiohttp.ClientResponse) -> int | None:
        text = response.headers.get("X-Session-Gap")
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
            raise self._refusal(response, None)
        return None if text is None else int(text)

    def _refusal(self, response: aiohttp.ClientResponse, answer: Any) -> RefusedError:
        return RefusedError(self.url, response.status, as_object(answer), response.headers)


def _reason(error: OSError) -> str:
    return "connection refused" if isinstance(error, ConnectionRefusedError) else error.strerror or str(error)


def may_pass(error: SessionsError) -> bool:
    """Tell whether what ended in *error* may go better a little later."""
    return isinstance(error, LostError | UnreachableError) or (isinstance(error, RefusedError) and error.is_transient)


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call, and make it again while it is not known to have been carried out or refused, for half a minute at most.

    A server that cannot be reached in the first place is not waited for: the address may be wrong.
    """
    began = monotonic()
    for pause in REPEAT_AFTER:
        try:
            return await call()
        except SessionsError as error:
            was_never_there = isinstance(error, UnreachableError) and pause == REPEAT_AFTER[0]
            if not may_pass(error) or was_never_there or monotonic() - began >= REPEAT_WITHIN:
                raise
        await asyncio.sleep(pause)
    return await call()
