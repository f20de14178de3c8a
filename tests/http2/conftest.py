"""A listener that answers HTTP/2 with a handler of the test's, and one process of the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Protocol

import attrs
import pytest

from harness.server import ServerProcess
from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.stream import Answer
from sessions_server.listening.listener import Listener


class _Closing(asyncio.Protocol):
    """Stands in for HTTP/1.1: says what it got, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(b"HTTP/1.1 got " + data)
        self.transport.close()


@attrs.frozen
class Site:
    """A listener and its port."""

    listener: Listener
    port: int


class OpenSite(Protocol):
    """Opens listeners for a test."""

    async def __call__(self, answer: Answer, limits: Http2Limits = ...) -> Site:
        """Open one."""


@pytest.fixture
async def open_listener() -> AsyncGenerator[OpenSite]:
    """Open listeners that end with the test."""
    opened: list[Listener] = []

    async def open_one(answer: Answer, limits: Http2Limits = Http2Limits()) -> Site:  # noqa: B008 - frozen
        listener = Listener(lambda _: _Closing(), answer, limits)
        (address, *_) = await listener.open("127.0.0.1", 0)
        opened.append(listener)
        return Site(listener, address[1])

    yield open_one
    for listener in opened:
        listener.stop()
        await listener.close(0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The real server in a process of its own."""
    with ServerProcess(tmp_path_factory.mktemp("data")) as process:
        yield process
