"""When a connection of HTTP/1.1 stands in the line of those that make place, on a transport that sends as much as a test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from unittest.mock import Mock

import attrs
import pytest
from aiohttp import web

from sessions_server.connections.places import Places
from sessions_server.connections.settings import ConnectionSettings
from sessions_server.http1.connection import Connection, Server
from sessions_server.http1.limits import Http1Limits
from sessions_server.problems import HttpError

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
TURNS = 50


@attrs.define(eq=False)
class Stage:
    """One connection, what it is answered, and how much of it waits to be sent."""

    places: Places
    connection: Connection
    wire: Mock
    below: Mock
    may_answer: asyncio.Event

    def waits(self) -> bool:
        return self.places.waiting == 1

    async def receive(self, data: bytes) -> None:
        """Let *data* come, and everything happen that follows from it."""
        self.connection.data_received(data)
        await settle()


async def settle() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def transport() -> Mock:
    wire = Mock(spec=asyncio.Transport)
    wire.get_write_buffer_size.return_value = 0
    wire.get_extra_info.return_value = None
    wire.is_closing.return_value = False
    return wire


def refuse(error: HttpError) -> web.Response:
    return web.Response(status=400, body=type(error).__name__.encode())


@pytest.fixture
async def stage() -> AsyncGenerator[Stage]:
    may_answer, places = asyncio.Event(), Places(1)
    may_answer.set()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        await may_answer.wait()
        return web.Response(body=b"answer")

    server = Server(handle, refuse, Http1Limits.of(ConnectionSettings()), places, lambda: False)
    wire, below = transport(), transport()
    connection = server.make(below)
    connection.connection_made(wire)
    await settle()
    yield Stage(places, connection, wire, below, may_answer)
    if connection.connected:
        connection.connection_lost(None)


async def test_it_waits_except_from_the_end_of_a_head_to_the_end_of_its_answer(stage: Stage) -> None:
    assert stage.waits()
    await stage.receive(GET[:10])
    assert stage.waits()
    stage.may_answer.clear()
    stage.connection.data_received(GET[10:])
    assert not stage.waits()  # before anybody has looked at the request
    await settle()
    assert not stage.waits()
    stage.may_answer.set()
    await settle()
    assert stage.waits()


async def test_it_does_not_wait_while_a_body_comes(stage: Stage) -> None:
    await stage.receive(POST + b"bo")
    assert not stage.waits()
    await stage.receive(b"dy")
    assert stage.waits()


async def test_it_does_not_wait_between_requests_that_have_come_together(stage: Stage) -> None:
    stage.connection.data_received(GET * 3)
    for _ in range(TURNS):
        if stage.wire.write.call_count + stage.wire.writelines.call_count == 3:
            break
        assert not stage.waits()
        await asyncio.sleep(0)
    await settle()
    assert stage.waits()


async def test_what_is_no_http_does_not_keep_a_place(stage: Stage) -> None:
    await stage.receive(b"no HTTP\r\n\r\n")
    assert stage.waits()
    assert stage.places.find(1)
    stage.below.abort.assert_called_once_with()


@pytest.mark.parametrize("where", ["wire", "below"])
async def test_it_keeps_its_place_until_its_answer_has_been_taken(stage: Stage, where: str) -> None:
    await stage.receive(GET)
    getattr(stage, where).get_write_buffer_size.return_value = 5
    assert not stage.places.find(1)
    stage.connection.look(time.monotonic())
    assert not stage.waits()
    getattr(stage, where).get_write_buffer_size.return_value = 0
    stage.connection.look(time.monotonic())
    assert stage.waits()
    stage.below.abort.assert_not_called()
    assert stage.places.find(1)
    stage.below.abort.assert_called_once_with()


async def test_being_looked_at_is_no_reason_to_wait(stage: Stage) -> None:
    stage.may_answer.clear()
    await stage.receive(GET)
    stage.connection.look(time.monotonic())
    assert not stage.waits()


async def test_who_is_gone_does_not_wait(stage: Stage) -> None:
    stage.may_answer.clear()
    await stage.receive(GET)
    stage.connection.connection_lost(None)
    stage.may_answer.set()
    await settle()
    assert not stage.waits()
