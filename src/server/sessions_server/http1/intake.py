"""What comes in before it is a request.

aiohttp's parser limits each header and their number, but not what all of them take together, and it does not tell whether a
request is half there. Both are counted here, as the bytes come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

import attrs
from aiohttp import EMPTY_PAYLOAD, HttpVersion10, StreamReader
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.http_parser import RawRequestMessage

from sessions_server.http1.limits import Http1Limits
from sessions_server.problems import HeadersTooLargeError, HttpError, MalformedRequestError, UrlTooLongError

Found = tuple[Sequence[tuple[RawRequestMessage, StreamReader]], bool, bytes]
_TOO_MANY: Final = "Too many headers received"


class HeadTooLargeError(BadHttpMessage):
    """All headers together are too large."""

    def __init__(self) -> None:
        super().__init__("all headers together are too large")


def refusal_of(error: BaseException, limits: Http1Limits) -> HttpError:
    """Return how *error*, which the parser has raised, is answered."""
    if isinstance(error, LineTooLong):
        return UrlTooLongError() if error.args[1] == limits.url else HeadersTooLargeError()
    is_too_large = isinstance(error, HeadTooLargeError) or error.args == (_TOO_MANY,)
    return HeadersTooLargeError() if is_too_large else MalformedRequestError()


@attrs.define(eq=False)
class Intake:
    """Stands where the parser stood, and counts what passes; ``begin`` is called when a request is there.

    Attributes:
        since: When the head began that is half there; None if there is none.
    """

    _parser: Any
    _limits: Http1Limits
    _begin: Callable[[], object]
    _clock: Callable[[], float] = monotonic
    since: float | None = attrs.field(init=False, default=None)
    feed_eof: Callable[[], Any] = attrs.field(init=False)
    pause_reading: Callable[[], None] = attrs.field(init=False)
    message_consumed: Callable[[], None] = attrs.field(init=False)
    set_upgraded: Callable[[bool], None] = attrs.field(init=False)
    _feed: Callable[[bytes], Found] = attrs.field(init=False)
    _body: StreamReader = attrs.field(init=False, default=EMPTY_PAYLOAD)
    _size: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        parser = self._parser
        self.feed_eof, self.pause_reading = parser.feed_eof, parser.pause_reading
        self.message_consumed, self.set_upgraded = parser.message_consumed, parser.set_upgraded
        self._feed = parser.feed_data

    def feed_data(self, data: bytes) -> Found:
        """Let the parser read *data*; return the requests that are there now.

        Raises:
            BadHttpMessage: It is no HTTP, or too much of it.
        """
        is_body = not self._body.is_eof()
        found = self._feed(data)
        messages = found[0]
        if messages:
            self._check(messages, self._size + len(data))
            self._body, self._size, self.since = messages[-1][1], 0, None
            self._begin()
        elif not is_body and data and (self._size or data.strip(b"\r\n")):
            self._count(len(data))
        return found

    def _check(self, messages: Sequence[tuple[RawRequestMessage, StreamReader]], size: int) -> None:
        """Look at versions, and at what the headers take, if they may be too large: a head is no larger than what has come."""
        if any(message.version < HttpVersion10 for message, _ in messages):
            raise BadHttpMessage("a version before 1.0, or none")
        if size > self._limits.header_bytes:
            for message, _ in messages:
                if sum(len(name) + len(value) for name, value in message.raw_headers) > self._limits.header_bytes:
                    raise HeadTooLargeError

    def _count(self, size: int) -> None:
        """Count what belongs to a head that is not whole yet."""
        if self.since is None:
            self.since = self._clock()
        self._size += size
        if self._size > self._limits.url + self._limits.field:
            raise HeadTooLargeError
