"""Requests over HTTP/2: bodies and answers of any size, at the same time, at the pace of the slower side."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from harness.http2 import PATIENCE, Http2Client, ResetError, connect
from http2.conftest import OpenSite
from sessions_server.exchange import BodyCutError
from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.stream import Stream

MIB = 1_048_576


async def echo(stream: Stream) -> None:
    """Send back what comes, as it comes."""
    await stream.start(200, {"content-type": "application/octet-stream"})
    async for piece in stream.body():
        await stream.write(piece)


async def until(condition: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await condition.wait()


async def test_a_handler_sees_the_request_as_it_was_sent(open_listener: OpenSite) -> None:
    seen: list[Stream] = []

    async def handle(stream: Stream) -> None:
        seen.append(stream)
        await stream.start(204, {"x-one": "1"})

    site = await open_listener(handle)
    async with connect(site.port) as client:
        answer = await client.call("DELETE", "/a%2Fb?c=d%20&e", headers=[("x-two", "2"), ("host", "localhost")])
    (stream,) = seen
    assert (stream.method, stream.path, stream.query) == ("DELETE", "/a%2Fb", "c=d%20&e")
    assert dict(stream.headers) == {"host": "localhost", "x-two": "2"}
    assert (answer.status, answer.headers["x-one"], answer.body) == (204, "1", b"")


async def test_the_answer_goes_on_while_the_body_comes(open_listener: OpenSite) -> None:
    site = await open_listener(echo)
    async with connect(site.port) as client:
        stream = client.begin("POST", "/")
        assert (await stream.head())[0] == 200
        for number in range(50):
            await stream.send(b"%d" % number)
            assert await stream.piece() == b"%d" % number
        await stream.end()
        assert await stream.piece() is None


@pytest.mark.parametrize("window", [1024, 65_535, 4 * MIB])
async def test_large_bodies_pass_both_ways_at_once_through_windows_of_any_size(
    open_listener: OpenSite, window: int
) -> None:
    site = await open_listener(echo, Http2Limits(stream_window=65_535))
    body = hashlib.shake_256(b"x").digest(MIB if window == 1024 else 20 * MIB)
    async with connect(site.port, window=window) as client:
        answer = await client.call("POST", "/", body)
    assert answer.body == body


async def test_nothing_is_given_back_that_the_handler_has_not_taken(open_listener: OpenSite) -> None:
    go_on, size = asyncio.Event(), 65_536

    async def slow(stream: Stream) -> None:
        await go_on.wait()
        await echo(stream)

    site = await open_listener(slow, Http2Limits(stream_window=size))
    async with connect(site.port) as client:
        await client.call_ping()
        stream = client.begin("POST", "/")
        sending = asyncio.create_task(stream.send(b"x" * (size + 1), end=True))
        while client.connection.local_flow_control_window(stream.id):
            await asyncio.sleep(0)
        await client.call_ping()
        assert client.connection.local_flow_control_window(stream.id) == 0
        assert not sending.done()
        go_on.set()
        assert len((await stream.answer()).body) == size + 1
        await sending


async def test_a_handler_that_writes_waits_for_its_client(open_listener: OpenSite) -> None:
    written = 0

    async def pour(stream: Stream) -> None:
        nonlocal written
        await stream.start(200, {})
        for _ in range(100):
            await stream.write(b"x" * 10_000)
            written += 10_000

    site = await open_listener(pour)
    async with connect(site.port, window=50_000) as client:
        client.gives_window = False
        stream = client.begin("GET", "/", end=True)
        received = 0
        while received < 50_000:
            piece = await stream.piece()
            assert piece is not None
            received += len(piece)
        await client.call_ping()
        assert (received, written) == (50_000, 50_000)
        client.gives_window = True
        client.give(stream.id, 50_000)
        assert len((await stream.answer()).body) == 950_000


async def test_answers_that_wait_for_one_window_take_turns(open_listener: OpenSite) -> None:
    async def pour(stream: Stream) -> None:
        await stream.start(200, {})
        await stream.write(b"x" * 1_000_000)

    site = await open_listener(pour)
    async with connect(site.port, window=2_000_000) as client:
        client.gives_window = False
        streams = [client.begin("GET", "/", end=True) for _ in range(8)]
        for _ in range(40):
            await client.call_ping()
            client.give(0, 32_768)
        async with asyncio.timeout(PATIENCE):
            while sum(stream.received for stream in streams) < 65_535 + 40 * 32_768:
                await client.call_ping()
        first, *others = [stream.received for stream in streams]
        assert max(*others, first - 65_535) - min(others) <= 2 * 16_384  # the first began when nobody else waited


async def test_two_hundred_streams_are_answered_at_once(open_listener: OpenSite) -> None:
    everybody, here = asyncio.Event(), 0

    async def meet(stream: Stream) -> None:
        nonlocal here
        here += 1
        if here == 200:
            everybody.set()
        await until(everybody)
        await echo(stream)

    site = await open_listener(meet)
    async with connect(site.port) as client:
        bodies = [b"%d" % number * 1000 for number in range(200)]
        answers = await asyncio.gather(*(client.call("POST", "/", body) for body in bodies))
    assert [answer.body for answer in answers] == bodies


async def test_what_is_over_the_limit_is_refused_and_may_come_again(open_listener: OpenSite) -> None:
    go_on = asyncio.Event()

    async def slow(stream: Stream) -> None:
        await until(go_on)
        await echo(stream)

    site = await open_listener(slow, Http2Limits(streams=4))
    async with connect(site.port) as client:  # it does not know the limit yet
        first = [client.begin("GET", "/", end=True) for _ in range(4)]
        with pytest.raises(ResetError, match="7"):
            await client.begin("GET", "/", end=True).head()
        go_on.set()
        assert [(await stream.answer()).status for stream in first] == [200] * 4
        assert (await client.call("GET", "/")).status == 200


async def test_a_request_that_is_given_up_cancels_its_handler_and_no_other(open_listener: OpenSite) -> None:
    cancelled, others = asyncio.Event(), asyncio.Event()

    async def handle(stream: Stream) -> None:
        if stream.path == "/other":
            return await echo(stream)
        try:
            await stream.start(200, {})
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    site = await open_listener(handle)
    async with connect(site.port) as client:
        other = client.begin("POST", "/other")
        await other.send(b"a")
        stream = client.begin("GET", "/", end=True)
        await stream.head()
        stream.reset()
        await until(cancelled)
        await other.send(b"b", end=True)
        assert (await other.answer()).body == b"ab"
    assert not others.is_set()


async def test_requests_that_are_given_up_before_they_begin_leave_nothing_behind(open_listener: OpenSite) -> None:
    async def answer(stream: Stream) -> None:
        await stream.start(200, {})

    site = await open_listener(answer)
    async with connect(site.port) as client:
        for _ in range(3 * Http2Limits().streams):
            client.begin("GET", "/", end=True).reset()
        assert (await client.call("GET", "/")).status == 200
        (connection,) = site.listener._connections
        await site.listener.close(PATIENCE)
        assert (connection._tasks, connection._streams) == ({}, {})
        assert client.goaways[-1][1] == 0


async def test_a_lost_connection_cancels_all_handlers(open_listener: OpenSite) -> None:
    cancelled = asyncio.Semaphore(0)

    async def handle(stream: Stream) -> None:
        try:
            await stream.start(200, {})
            async for _ in stream.body():
                pass
        except (asyncio.CancelledError, BodyCutError):
            cancelled.release()
            raise

    site = await open_listener(handle)
    async with connect(site.port) as client:
        for _ in range(3):
            await client.begin("POST", "/").head()
        client.writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            for _ in range(3):
                await cancelled.acquire()


async def refuse(stream: Stream) -> None:
    await stream.start(413, {})
    await stream.write(b"too large")


async def test_a_body_that_is_answered_early_may_end_in_peace(open_listener: OpenSite) -> None:
    site = await open_listener(refuse, Http2Limits(stream_window=65_536, window=131_072))
    async with connect(site.port) as client:
        for _ in range(5):  # more than the connection's window in all, so what is not read is given back
            stream = client.begin("POST", "/")
            assert (await stream.answer()).body == b"too large"
            await stream.send(b"x" * 65_536, end=True)
            await client.call_ping()
            assert stream.reset_code is None
        assert (await client.call("POST", "/")).status == 413


async def test_a_body_that_goes_on_after_its_answer_is_stopped_without_an_error(open_listener: OpenSite) -> None:
    site = await open_listener(refuse)
    async with connect(site.port) as client:
        stream = client.begin("POST", "/")
        assert (await stream.answer()).status == 413
        async with asyncio.timeout(PATIENCE):
            while stream.reset_code is None:
                await stream.send(b"x")
                await asyncio.sleep(0.01)
        assert stream.reset_code == 0


async def test_a_handler_that_fails_is_answered_with_500_or_a_visible_cut(open_listener: OpenSite) -> None:
    async def fail(stream: Stream) -> None:
        if stream.path == "/late":
            await stream.start(200, {})
            await stream.write(b"half")
        if stream.path == "/broken":
            await stream.start(200, {"x": "a\r\nb: c"})
        if stream.path != "/silent":
            raise RuntimeError("for a test")

    site = await open_listener(fail)
    async with connect(site.port) as client:
        for path in ("/early", "/silent", "/broken"):
            assert (await client.call("GET", path)).status == 500
        with pytest.raises(ResetError, match="2"):
            await client.call("GET", "/late")


async def test_a_body_that_is_held_back_is_asked_for(open_listener: OpenSite) -> None:
    site = await open_listener(echo_later)
    async with connect(site.port) as client:
        stream = client.begin("POST", "/", [("expect", "100-continue")])
        while not stream.informational:
            await client.call_ping()
        await stream.send(b"here", end=True)
        assert stream.informational == [100]
        assert (await stream.answer()).body == b"here"


async def echo_later(stream: Stream) -> None:
    body = b"".join([piece async for piece in stream.body()])
    await stream.start(200, {})
    await stream.write(body)


async def test_trailers_end_a_body(open_listener: OpenSite) -> None:
    site = await open_listener(echo)
    async with connect(site.port) as client:
        stream = client.begin("POST", "/")
        await stream.send(b"body")
        client.connection.send_headers(stream.id, [("x-trailer", "1")], end_stream=True)
        client.flush()
        assert (await stream.answer()).body == b"body"


async def test_a_client_that_says_goodbye_still_gets_its_answers(open_listener: OpenSite) -> None:
    go_on = asyncio.Event()

    async def slow(stream: Stream) -> None:
        await until(go_on)
        await echo(stream)

    site = await open_listener(slow)
    async with connect(site.port) as client:
        stream = client.begin("GET", "/", end=True)
        await client.call_ping()
        say_goodbye(client)
        await client.call_ping()
        go_on.set()
        assert (await stream.answer()).status == 200
        await until(client.closed)


def say_goodbye(client: Http2Client) -> None:
    client.writer.write(b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))
