"""Bodies that are packed, cut, too large or too slow."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import HttpVersion11, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import RawRequestMessage
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from sessions_core.domain.ids import EnvironmentId
from sessions_core.testing import VirtualTimeLoop
from sessions_server.bodies import BYTES_PER_SECOND, collect, read_body, without_body
from sessions_server.http1.request import Request
from sessions_server.limits.settings import LimitSettings
from sessions_server.limits.unfinished_bytes import REQUEST_BYTES, SMALL_BYTES, UnfinishedBytes
from sessions_server.observability.metrics import Metrics
from sessions_server.problems import (
    BodyTooLargeError,
    HttpError,
    RequestTimeoutError,
    TooMuchUnfinishedError,
    UnreadableBodyError,
    UnsupportedEncodingError,
)

CAP = 1000
PATIENCE = timedelta(seconds=60)
ONE = EnvironmentId("env_one")


def deflate(data: bytes) -> bytes:
    """Pack without a head, as some clients do."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def make_unfinished(**limits: Any) -> UnfinishedBytes:
    return UnfinishedBytes(LimitSettings(**limits), Metrics())


class _Protocol(BaseProtocol):
    """Of a connection that is never full. No mock, which would remember every call."""

    connected = True

    def pause_reading(self) -> None: ...

    def resume_reading(self, resume_parser: bool = True) -> None: ...


def request(encoding: str | None) -> Request:
    """Make a request of whose body nothing has come."""
    loop = asyncio.get_running_loop()
    body = StreamReader(_Protocol(loop), 2**16, loop=loop)
    headers = CIMultiDictProxy(CIMultiDict({} if encoding is None else {"Content-Encoding": encoding}))
    message = RawRequestMessage("POST", "/", HttpVersion11, headers, (), False, None, False, True, URL("/"))
    task: Any = asyncio.current_task()
    return Request(message, body, Mock(), Mock(), task, loop)


async def send(body: StreamReader, pieces: Sequence[bytes]) -> None:
    """Send *pieces*, each when the one before has been taken."""
    for piece in pieces:
        body.feed_data(piece)
        await asyncio.sleep(0)
    body.feed_eof()


async def read(encoding: str | None, pieces: Sequence[bytes], *, is_whole: bool) -> bytes | type[Exception]:
    made, unfinished = request(encoding), make_unfinished()
    sending = asyncio.create_task(send(made.content, pieces))
    if is_whole:
        await sending
    try:
        with unfinished.share_of(ONE, None) as share:
            return await read_body(made, CAP, PATIENCE, share)
    except (HttpError, UnreadableBodyError) as error:
        return type(error)
    finally:
        await sending
        assert len(unfinished) == 0


def outcome(encoding: str | None, *pieces: bytes) -> bytes | type[Exception]:
    """Read a body that is there whole, and once more as it comes: it has to make no difference."""
    whole = asyncio.run(read(encoding, pieces, is_whole=True))
    assert asyncio.run(read(encoding, pieces, is_whole=False)) == whole
    return whole


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        (None, bytes),
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", deflate),
    ],
)
@pytest.mark.parametrize("size", [1, CAP, CAP + 1, 1_000_000])
def test_a_body_is_unpacked_up_to_the_cap(encoding: str | None, pack: Any, size: int) -> None:
    data = b"x" * size
    assert outcome(encoding, pack(data)) == (data if size <= CAP else BodyTooLargeError)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, deflate], ids=["gzip", "zlib", "deflate"])
def test_a_body_that_packing_makes_longer_than_the_cap_is_taken(pack: Any) -> None:
    data = hashlib.shake_256(b"x").digest(CAP)
    packed = pack(data)
    assert len(packed) > CAP
    assert outcome("gzip" if pack is gzip.compress else "deflate", packed) == data


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, deflate], ids=["gzip", "zlib", "deflate"])
def test_a_bomb_is_not_unpacked_before_it_is_refused(pack: Any) -> None:
    packed, encoding = pack(bytes(20_000_000)), "gzip" if pack is gzip.compress else "deflate"
    tracemalloc.start()
    try:
        assert outcome(encoding, packed) is BodyTooLargeError
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@given(data=st.binary(max_size=CAP), cuts=st.lists(st.integers(0, 1100), max_size=5))
def test_it_does_not_matter_in_which_pieces_a_packed_body_comes(data: bytes, cuts: list[int]) -> None:
    packed = gzip.compress(data)
    places = sorted({0, *(cut for cut in cuts if cut < len(packed)), len(packed)})
    pieces = [packed[start:end] for start, end in pairwise(places)]
    assert outcome("gzip", *pieces) == data


@given(end=st.integers(0, 29))
def test_a_packed_body_that_is_cut_short_is_refused_wherever_it_is_cut(end: int) -> None:
    packed = gzip.compress(b"not much")
    assert outcome("gzip", packed[: min(end, len(packed) - 1)]) is UnreadableBodyError


@pytest.mark.parametrize(
    "packed",
    [b"no gzip", gzip.compress(b"a") + b"more", gzip.compress(b"a") * 2, b"\x1f\x8b\xff"],
    ids=["none", "more", "two", "broken"],
)
def test_what_is_not_packed_as_it_says_is_refused(packed: bytes) -> None:
    assert outcome("gzip", packed) is UnreadableBodyError
    assert outcome("gzip", *(packed[at : at + 1] for at in range(len(packed)))) is UnreadableBodyError


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip;q=1", "é"])
def test_what_we_cannot_unpack_is_not_taken_for_text(encoding: str) -> None:
    assert outcome(encoding, b"text") is UnsupportedEncodingError


async def kept(made: Request, unfinished: UnfinishedBytes, cap: int = CAP) -> bytes:
    """Read a body, and forget it."""
    with unfinished.share_of(ONE, None) as share:
        return await read_body(made, cap, PATIENCE, share)


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    unfinished, made = make_unfinished(), request(None)
    made.content.feed_data(b"half of it")
    with pytest.raises(RequestTimeoutError), unfinished.share_of(ONE, None) as share:
        await read_body(made, CAP, timedelta(seconds=0.02), share)
    assert len(unfinished) == 0


async def paced(pause: float, count: int) -> AsyncIterator[bytes]:
    """Yield *count* pieces of 16 KiB, each *pause* seconds after the one before."""
    for _ in range(count):
        await asyncio.sleep(pause)
        yield bytes(BYTES_PER_SECOND)


async def collect_paced(pause: float, count: int, patience: timedelta) -> int:
    """Return how long the body is."""
    with make_unfinished().share_of(ONE, None) as share:
        return len(await collect(paced(pause, count), count * BYTES_PER_SECOND, patience, share))


def test_a_body_may_take_a_second_longer_for_each_16_kib_of_it() -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(collect_paced(0.9, 20, timedelta(seconds=2))) == 20 * BYTES_PER_SECOND
        with pytest.raises(RequestTimeoutError):
            runner.run(collect_paced(1.2, 20, timedelta(seconds=2)))


async def test_a_body_that_nobody_wanted_can_be_read_on_at_once_when_its_request_is_handled() -> None:
    body = request(None).content

    async def handle() -> str:
        body.feed_data(b"dropped")
        await asyncio.sleep(0)
        return "handled"

    assert await without_body(body.iter_any(), handle) == "handled"
    asyncio.get_running_loop().call_soon(body.feed_data, b"next")  # once somebody waits for it, who has to be alone
    assert await body.readany() == b"next"


# --- what is held of bodies ---


async def test_a_small_body_that_is_there_whole_counts_for_nothing() -> None:
    unfinished, made = make_unfinished(unfinished_bytes=1), request("gzip")
    await send(made.content, [gzip.compress(bytes(SMALL_BYTES))])
    with unfinished.share_of(ONE, None) as share:
        assert await read_body(made, SMALL_BYTES, PATIENCE, share) == bytes(SMALL_BYTES)
        assert unfinished.held == 0


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("encoding", [None, "gzip"])
async def test_a_large_body_counts_with_what_is_in_it_until_it_is_released(
    encoding: str | None, is_whole: bool
) -> None:
    unfinished, made, body = make_unfinished(unfinished_bytes=60_000), request(encoding), b"x" * 40_000
    sending = asyncio.create_task(send(made.content, [body if encoding is None else gzip.compress(body)]))
    if is_whole:
        await sending
    with unfinished.share_of(ONE, None) as share:
        assert await read_body(made, 100_000, PATIENCE, share) == body
        assert unfinished.held == 40_000
        other = request("gzip")
        await send(other.content, [gzip.compress(body)])
        with pytest.raises(TooMuchUnfinishedError):
            await kept(other, unfinished, 100_000)
        assert unfinished.held == 40_000
    await sending
    assert len(unfinished) == 0


async def test_a_request_that_waits_for_its_body_counts_with_all_that_has_come() -> None:
    unfinished, made = make_unfinished(), request(None)
    reading = asyncio.create_task(kept(made, unfinished))
    await asyncio.sleep(0)
    assert unfinished.held == REQUEST_BYTES
    made.content.feed_data(b"x" * 700)
    await asyncio.sleep(0)
    assert unfinished.held == REQUEST_BYTES + 700
    made.content.feed_eof()
    assert await reading == b"x" * 700
    assert len(unfinished) == 0


async def test_one_more_than_may_be_held_is_refused_and_the_others_go_on() -> None:
    unfinished = make_unfinished(unfinished_bytes=2 * REQUEST_BYTES + 200)
    made = [request(None) for _ in range(3)]
    reading = [asyncio.create_task(kept(each, unfinished)) for each in made]
    with pytest.raises(TooMuchUnfinishedError):
        await reading[2]
    made[0].content.feed_data(b"x" * 200)
    await asyncio.sleep(0)
    made[1].content.feed_data(b"x")
    with pytest.raises(TooMuchUnfinishedError):
        await reading[1]
    made[0].content.feed_eof()
    assert await reading[0] == b"x" * 200
    assert len(unfinished) == 0


async def test_a_bomb_that_does_not_end_takes_no_more_than_has_been_sent() -> None:
    unfinished, bomb = make_unfinished(), gzip.compress(bytes(1_000_000))[:-1]
    made = [request("gzip") for _ in range(20)]
    tracemalloc.start()
    try:
        reading = [asyncio.create_task(kept(each, unfinished, 1_048_576)) for each in made]
        for each in made:
            each.content.feed_data(bomb)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert unfinished.held == len(made) * (REQUEST_BYTES + len(bomb))
        _, peak = tracemalloc.get_traced_memory()
        assert peak < unfinished.held
    finally:
        tracemalloc.stop()
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
    assert len(unfinished) == 0


async def test_a_body_that_comes_in_tiny_pieces_takes_no_more_than_it_is_counted_for() -> None:
    unfinished, made = make_unfinished(), request(None)
    reading = asyncio.create_task(kept(made, unfinished, 100_000))
    tracemalloc.start()
    try:
        for number in range(5_000):
            made.content.feed_data(b"%04d" % number)
            await asyncio.sleep(0)
        held, _ = tracemalloc.get_traced_memory()
        assert held < unfinished.held == REQUEST_BYTES + 20_000
    finally:
        tracemalloc.stop()
        reading.cancel()
        await asyncio.wait([reading])
