"""What a client may not do: each ends its own connection, costs little, and disturbs nobody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from harness.http2 import PATIENCE, PREFACE, RawClient, connect, connect_raw
from harness.server import ServerProcess
from http2.conftest import OpenSite
from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.stream import Stream

MOST_MEMORY = 16 * 1_048_576
"""What one bad client may make the process grow by."""

pytestmark = pytest.mark.timeout(60)


def frame(kind: int, stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    """Return a frame that no library would let us send."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream_id.to_bytes(4) + payload


def memory(server: ServerProcess) -> int:
    """Return the process's resident bytes."""
    text = Path(f"/proc/{server.pid}/statm").read_text()
    return int(text.split()[1]) * 4096


def pings(_: RawClient) -> Iterator[Frame | bytes]:
    while True:
        yield PingFrame(0, b"12345678")


def settings(_: RawClient) -> Iterator[Frame | bytes]:
    """Other ones each time, for the server to remember."""
    for number in count(1000, 30):
        yield frame(4, 0, b"".join((each % 65_536).to_bytes(2) + b"\0\0\0\1" for each in range(number, number + 30)))


def priorities(_: RawClient) -> Iterator[Frame | bytes]:
    for number in count():
        yield PriorityFrame(2 * number + 1, stream_weight=7)


def empty_data(client: RawClient) -> Iterator[Frame | bytes]:
    yield client.request(1, end=False)
    while True:
        yield DataFrame(1, b"", pad_length=8, flags=["PADDED"])


def rapid_resets(client: RawClient) -> Iterator[Frame | bytes]:
    for number in count(1, 2):
        yield client.request(number)
        yield RstStreamFrame(number, error_code=8)


def requests_over_the_limit(client: RawClient) -> Iterator[Frame | bytes]:
    for number in count(1, 2):
        yield client.request(number, "/healthz", end=False)


def endless_headers(client: RawClient) -> Iterator[Frame | bytes]:
    yield HeadersFrame(1, b"\x00\x01x\x01y")
    while True:
        yield ContinuationFrame(1, b"\x00\x01x\x01y" * 100)


def empty_continuations(client: RawClient) -> Iterator[Frame | bytes]:
    yield HeadersFrame(1, b"")
    while True:
        yield ContinuationFrame(1, b"")


def header_bomb(client: RawClient) -> Iterator[Frame | bytes]:
    """A long header once, then a thousand references of one byte to it."""
    bomb = client.encoder.encode([("x-bomb", "b" * 3000)]) + b"\xbe" * 1000
    for number in count(1, 2):
        yield HeadersFrame(number, bomb, flags=["END_HEADERS", "END_STREAM"])


def window_updates(client: RawClient) -> Iterator[Frame | bytes]:
    yield client.request(1, end=False)
    while True:
        yield WindowUpdateFrame(1, window_increment=1)


def late_data(client: RawClient) -> Iterator[Frame | bytes]:
    yield client.request(1, end=False)
    yield RstStreamFrame(1, error_code=8)
    while True:
        yield DataFrame(1, b"x")


FLOODS = [
    pings,
    settings,
    priorities,
    empty_data,
    rapid_resets,
    requests_over_the_limit,
    endless_headers,
    empty_continuations,
    header_bomb,
    window_updates,
    late_data,
]


async def flood(client: RawClient, frames: Iterator[Frame | bytes]) -> int:
    """Send frames until the server has had enough; return how many."""
    sent = 0
    try:
        for each in frames:
            client.send(each)
            sent += 1
            if sent % 100 == 0:
                await client.writer.drain()
                await asyncio.sleep(0)
                if client.reader.at_eof() or client.writer.is_closing():
                    break
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize("frames", FLOODS, ids=lambda each: each.__name__)
async def test_a_flood_is_told_to_calm_down(
    server: ServerProcess, frames: Callable[[RawClient], Iterator[Frame | bytes]]
) -> None:
    before = memory(server)
    async with connect(server.port) as bystander, connect_raw(server.port) as client:
        watching = asyncio.create_task(client.goodbye())
        async with asyncio.timeout(PATIENCE):
            flooding = asyncio.create_task(flood(client, frames(client)))
            goodbye = await watching
            client.writer.transport.abort()
            sent = await flooding
        assert (await bystander.call("GET", "/healthz")).status == 200
    assert goodbye is not None
    of_h2 = frames is empty_continuations
    assert goodbye[0] == (ErrorCodes.PROTOCOL_ERROR if of_h2 else ErrorCodes.ENHANCE_YOUR_CALM), goodbye
    assert sent < 200_000
    assert memory(server) - before < MOST_MEMORY


async def test_making_the_server_break_requests_off_is_as_bad_as_doing_so(open_listener: OpenSite) -> None:
    async def answer(stream: Stream) -> None:
        await stream.read()

    site, begun = await open_listener(answer), count(1, 2)
    async with connect_raw(site.port) as client, asyncio.timeout(PATIENCE):
        goodbye, frames = None, client.frames()
        while goodbye is None:
            numbers = list(islice(begun, 50))
            assert numbers[0] < 5000, "nobody counts"
            client.send(*(frame for number in numbers for frame in (client.request(number), DataFrame(number, b"x"))))
            client.send(PingFrame(0, b"12345678"))
            while not isinstance(came := await anext(frames), PingFrame | GoAwayFrame):
                pass
            goodbye = came if isinstance(came, GoAwayFrame) else None
    assert goodbye.error_code == ErrorCodes.ENHANCE_YOUR_CALM


async def test_a_client_that_never_reads_keeps_what_it_asked_for_small(server: ServerProcess) -> None:
    before = memory(server)
    async with connect_raw(server.port) as client:
        async with asyncio.timeout(PATIENCE):
            frames = (client.request(number, "/openapi.json") for number in count(1, 2))
            client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}))
            client.send(WindowUpdateFrame(0, window_increment=2**30))
            await flood(client, frames)
    assert memory(server) - before < MOST_MEMORY


async def test_who_floods_and_breaks_off_is_no_error_of_ours(open_listener: OpenSite) -> None:
    async def answer(stream: Stream) -> None:
        await stream.start(204, {})

    site, errors, loop = await open_listener(answer), list[dict[str, Any]](), asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    raw = socket.create_connection(("127.0.0.1", site.port))
    raw.setblocking(False)
    raw.sendall(PREFACE + SettingsFrame(0).serialize() + PingFrame(0, b"12345678").serialize())
    async with asyncio.timeout(PATIENCE):
        while not (await loop.sock_recv(raw, 65_536)).endswith(b"12345678"):
            pass
        raw.sendall(b"".join(islice((frame(2, number, b"\0\0\0\0\7") for number in count(1, 2)), 3000)))
        while not any(connection._frames._buffer for connection in site.listener._connections):
            await asyncio.sleep(0)
        raw.close()  # now the first word that is sent to it breaks the connection
        while site.listener._connections:
            await asyncio.sleep(0.01)
    assert errors == []


async def test_answers_that_need_no_window_do_not_pile_up_either(open_listener: OpenSite) -> None:
    random = Random(7)

    async def answer(stream: Stream) -> None:
        await stream.start(204, {"x-noise": random.randbytes(1000).hex()})

    site = await open_listener(answer, Http2Limits(backlog=65_536))
    async with connect_raw(site.port, room=4096) as client, asyncio.timeout(PATIENCE):
        client.send(client.request(1))
        await anext(client.frames())
        (connection,) = site.listener._connections
        connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert await flood(client, (client.request(number) for number in count(3, 2))) < 2000


async def test_windows_of_one_byte_are_not_served_for_ever(open_listener: OpenSite) -> None:
    async def pour(stream: Stream) -> None:
        await stream.start(200, {})
        while True:
            await stream.write(b"x" * 1000)

    site = await open_listener(pour)
    async with connect_raw(site.port) as client:
        client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1}), client.request(1))
        goodbye = None
        async for each in client.frames():
            if isinstance(each, DataFrame):
                client.send(WindowUpdateFrame(1, window_increment=1), WindowUpdateFrame(0, window_increment=1))
            elif isinstance(each, GoAwayFrame):
                goodbye = each
        assert goodbye is not None
        assert goodbye.additional_data == b"too many tiny windows"


async def test_an_answer_waits_only_so_long_for_a_window_of_nothing(open_listener: OpenSite) -> None:
    ends: asyncio.Queue[BaseException] = asyncio.Queue()

    async def pour(stream: Stream) -> None:
        await stream.start(200, {})
        try:
            await stream.write(b"x" * 1000)
        except ConnectionError as error:
            ends.put_nowait(error)
            raise

    site = await open_listener(pour, Http2Limits(slow_write=0.05))
    async with connect_raw(site.port) as client:
        client.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}), client.request(1))
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await ends.get(), ConnectionResetError)
            async for each in client.frames():
                if isinstance(each, RstStreamFrame):
                    assert each.error_code == ErrorCodes.CANCEL
                    break


async def test_what_a_client_lets_us_remember_is_not_remembered(open_listener: OpenSite) -> None:
    async def answer(stream: Stream) -> None:
        await stream.start(204, {"x-path": stream.path})

    site = await open_listener(answer)
    async with connect(site.port) as client:
        client.connection.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**24})
        for start in range(0, 1200, 100):
            paths = [f"/{number:0>200}" for number in range(start, start + 100)]
            answers = await asyncio.gather(*(client.call("GET", path) for path in paths))
            assert [answer.headers["x-path"] for answer in answers] == paths
        (connection,) = site.listener._connections
        assert connection._h2.encoder.header_table_size == 4096
        assert len(connection._h2._closed_streams) <= 1024


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"", Http2Limits(idle=0.05)),
        (PREFACE[:7], Http2Limits(headers=0.05)),
        (PREFACE, Http2Limits(headers=0.05)),
        (PREFACE + SettingsFrame(0).serialize() + HeadersFrame(1, b"\x00").serialize(), Http2Limits(headers=0.05)),
        (PREFACE + SettingsFrame(0).serialize() + HeadersFrame(1, b"abc").serialize()[:10], Http2Limits(headers=0.05)),
        (PREFACE + SettingsFrame(0).serialize(), Http2Limits(idle=0.05)),
        (PREFACE + SettingsFrame(0).serialize(), Http2Limits(quiet=0.05, pong=0.05)),
    ],
    ids=["nothing", "half a preface", "no settings", "half a block", "half a frame", "no request", "no pong"],
)
async def test_a_connection_that_stands_still_is_closed(
    open_listener: OpenSite, data: bytes, limits: Http2Limits
) -> None:
    site = await open_listener(answer_nothing, limits)
    async with connect_raw(site.port, greet=False) as client:
        client.writer.write(data)
        async with asyncio.timeout(PATIENCE):
            await client.goodbye()


async def answer_nothing(stream: Stream) -> None:
    await stream.start(204, {})


async def test_a_client_that_answers_pings_may_wait_as_long_as_it_likes(open_listener: OpenSite) -> None:
    go_on = asyncio.Event()

    async def wait(stream: Stream) -> None:
        await go_on.wait()
        await stream.start(204, {})

    site = await open_listener(wait, Http2Limits(quiet=0.02, pong=0.02, idle=0.1))
    async with connect(site.port) as client:
        stream = client.begin("GET", "/", end=True)
        while client.pings < 10:
            await asyncio.sleep(0.01)
        go_on.set()
        assert (await stream.answer()).status == 204


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(0, 0, b"x"), ErrorCodes.PROTOCOL_ERROR),
        (frame(0, 9, b"x"), ErrorCodes.PROTOCOL_ERROR),
        (frame(1, 1, b"\xff\xff\xff\xff", 4), ErrorCodes.PROTOCOL_ERROR),
        (frame(3, 5, bytes(4)), ErrorCodes.PROTOCOL_ERROR),
        (frame(4, 0, b"12345"), ErrorCodes.FRAME_SIZE_ERROR),
        (frame(6, 0, b"1234"), ErrorCodes.FRAME_SIZE_ERROR),
        (frame(8, 0, (2**31 - 1).to_bytes(4)), ErrorCodes.FLOW_CONTROL_ERROR),
        (frame(9, 1, b""), ErrorCodes.PROTOCOL_ERROR),
        (b"\xff\xff\xff\0\0\0\0\0\x01", ErrorCodes.FRAME_SIZE_ERROR),
    ],
)
async def test_what_breaks_the_protocol_ends_its_connection_alone(
    server: ServerProcess, data: bytes, code: ErrorCodes
) -> None:
    async with connect(server.port) as bystander:
        async with connect_raw(server.port) as client:
            client.writer.write(data)
            goodbye = await client.goodbye()
        assert goodbye is not None
        assert goodbye[0] == code
        assert (await bystander.call("GET", "/healthz")).status == 200


async def test_noise_of_any_kind_is_borne(server: ServerProcess) -> None:
    random = Random(7)
    for _ in range(200):
        async with connect_raw(server.port) as client:
            for _ in range(5):
                kind, size = random.randrange(11), random.choice((0, 4, 5, 8, 40))
                client.writer.write(frame(kind, random.randrange(4), random.randbytes(size)))
            client.writer.write_eof()
            await client.goodbye()
    async with connect(server.port) as client:
        assert (await client.call("GET", "/healthz")).status == 200


def test_nothing_of_this_was_logged_as_our_fault(server: ServerProcess) -> None:
    assert not [line for line in server.output if "Traceback" in line or "ERROR" in line]
