"""When a connection of HTTP/2 stands in the line of those that make place, on a transport that sends as much as a test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from unittest.mock import Mock

import attrs
import pytest
from hpack import Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame

from sessions_server.connections.places import Places
from sessions_server.http2.connection import Connection
from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.stream import Stream

FIELDS = [(":method", "GET"), (":path", "/x"), (":scheme", "http"), (":authority", "x")]
OFTEN = Http2Limits(pong=0.02)
"""A connection looks every 10 ms; nothing else comes of it, since none is asked whether it is there."""
PATIENCE = 20.0


@attrs.define(eq=False)
class Stage:
    """One connection, what it is answered, and how much of it waits to be sent."""

    places: Places
    connection: Connection
    peers: set[Connection]
    wire: Mock
    below: Mock
    may_answer: asyncio.Event

    def ask(self) -> None:
        """Greet the server and make a request."""
        head = HeadersFrame(1, Encoder().encode(FIELDS), flags=["END_HEADERS", "END_STREAM"])
        self.connection.data_received(SettingsFrame(0).serialize() + head.serialize())

    async def until_waiting(self, count: int) -> None:
        """Wait until so many stand in the line."""
        deadline = time.monotonic() + PATIENCE
        while self.places.waiting != count:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)


def transport() -> Mock:
    wire = Mock(spec=asyncio.Transport)
    wire.get_write_buffer_size.return_value = 0
    wire.get_extra_info.return_value = None
    wire.is_closing.return_value = False
    return wire


@pytest.fixture
async def stage() -> AsyncGenerator[Stage]:
    may_answer, places, peers = asyncio.Event(), Places(1), set[Connection]()
    may_answer.set()

    async def answer(stream: Stream) -> None:
        await may_answer.wait()
        await stream.start(204, {})

    wire, below = transport(), transport()
    connection = Connection(answer, OFTEN, peers, places, below)
    connection.connection_made(wire)
    yield Stage(places, connection, peers, wire, below, may_answer)
    if connection in peers:
        connection.connection_lost(None)
    for (farewell,), _ in wire.set_protocol.call_args_list:
        farewell.connection_lost(None)


async def test_it_waits_except_while_a_request_is_answered(stage: Stage) -> None:
    assert stage.places.waiting == 1
    stage.may_answer.clear()
    stage.ask()
    assert stage.places.waiting == 0
    stage.may_answer.set()
    await stage.until_waiting(1)


@pytest.mark.parametrize("where", ["wire", "below"])
async def test_who_was_passed_over_waits_again_when_its_answer_has_been_taken(stage: Stage, where: str) -> None:
    stage.ask()
    await stage.until_waiting(1)
    getattr(stage, where).get_write_buffer_size.return_value = 5
    assert not stage.places.find(1)
    assert stage.places.waiting == 0
    stage.wire.set_protocol.assert_not_called()
    getattr(stage, where).get_write_buffer_size.return_value = 0
    await stage.until_waiting(1)
    assert stage.places.find(1)
    assert (stage.places.made, stage.peers) == (1, set())
