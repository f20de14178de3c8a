"""Bodies that are packed, cut, too large or too slow."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from datetime import timedelta
from itertools import pairwise
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import HttpVersion11, StreamReader
from aiohttp.http_parser import RawRequestMessage
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from sessions_server.bodies import read_body
from sessions_server.http1.request import Request
from sessions_server.problems import (
    BodyTooLargeError,
    HttpError,
    RequestTimeoutError,
    UnreadableBodyError,
    UnsupportedEncodingError,
)

CAP = 1000
PATIENCE = timedelta(seconds=60)


def deflate(data: bytes) -> bytes:
    """Pack without a head, as some clients do."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def request(encoding: str | None, *pieces: bytes, ends: bool = True) -> Request:
    """Make a request whose body has come in *pieces*."""
    body = StreamReader(Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
    for piece in pieces:
        body.feed_data(piece)
    if ends:
        body.feed_eof()
    headers = CIMultiDictProxy(CIMultiDict({} if encoding is None else {"Content-Encoding": encoding}))
    message = RawRequestMessage("POST", "/", HttpVersion11, headers, (), False, None, False, True, URL("/"))
    task: Any = asyncio.current_task()
    return Request(message, body, Mock(), Mock(), task, asyncio.get_running_loop())


def outcome(encoding: str | None, *pieces: bytes) -> bytes | type[Exception]:
    async def read() -> bytes | type[Exception]:
        try:
            return await read_body(request(encoding, *pieces), CAP, PATIENCE)
        except (HttpError, UnreadableBodyError) as error:
            return type(error)

    return asyncio.run(read())


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


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    with pytest.raises(RequestTimeoutError):
        await read_body(request(None, b"half of it", ends=False), CAP, timedelta(seconds=0.02))
