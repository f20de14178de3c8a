"""One request and its answer, whatever version of HTTP carries them.

The data plane is written against this seam alone; HTTP/1.1 (aiohttp) and HTTP/2 each implement it. Body and answer are
independent of each other: an append session answers while its body is still coming.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol


class BodyCutError(Exception):
    """The body cannot be read to its end: it is broken, or came too slowly. Its sender may still be told."""


class Exchange(Protocol):
    """One request on its way to its answer.

    Whoever serves the connection calls a :data:`Handler` with it, in a task of its own. When the handler returns, the answer
    is complete: what is left of the body is of no interest (HTTP/2 then ends the stream with ``NO_ERROR``, HTTP/1.1 closes the
    connection if the body is not at its end). A handler that raises before :meth:`start` is answered with 500; one that
    raises later leaves an answer that is visibly cut (``INTERNAL_ERROR``; no last chunk). When the client resets the stream or the
    connection is lost, the handler is cancelled.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def method(self) -> str:
        """The method, such as ``POST``."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The path as it was sent: percent-encoded, without the query string."""

    @property
    @abstractmethod
    def query(self) -> str:
        """The query string as it was sent, without its question mark; empty if there is none."""

    @property
    @abstractmethod
    def headers(self) -> Mapping[str, str]:
        """The request's headers. Names are lower case and carry no pseudo headers; of a repeated one, any value."""

    @property
    @abstractmethod
    def peer(self) -> str | None:
        """The address that the request came from; None if that is not known."""

    @property
    @abstractmethod
    def is_body_complete(self) -> bool:
        """Whether the body has come to its end, read or not: nobody has to wait for any of it."""

    @abstractmethod
    def body(self) -> AsyncIterator[bytes]:
        """Return the body, as it comes, in pieces of any size but never empty; it is read once.

        A piece that has been handed out counts as consumed: flow control gives its room back only then, so a handler that
        reads slowly slows its client.

        Raises:
            BodyCutError: From the iterator, when the body cannot be read to its end.
        """

    @abstractmethod
    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status and headers at once, without waiting for the first piece of the answer. Called exactly once."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send a piece of the answer; return once there is room for more, which a slow reader puts off. Not before :meth:`start`."""


Handler = Callable[[Exchange], Awaitable[None]]
"""Answers one exchange. The answer ends when it returns."""
