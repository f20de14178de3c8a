"""Frames of streaming sessions: ours and the official SDK's are the same, and nothing odd gets through."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from s2_sdk import Compression as TheirCompression
from s2_sdk._compression import compress as compress_theirs
from s2_sdk._s2s._protocol import Message, deframe_message, frame_message

from sessions_server.data_plane.compression import Compression, accepted, compress, decompress
from sessions_server.data_plane.failures import S2Error
from sessions_server.data_plane.frames import MAX_FRAME, FrameReader, encode_frame, encode_terminal

THEIRS = {
    Compression.NONE: TheirCompression.NONE,
    Compression.ZSTD: TheirCompression.ZSTD,
    Compression.GZIP: TheirCompression.GZIP,
}
payloads = st.binary(max_size=3000)


def theirs(payload: bytes, compression: Compression = Compression.NONE) -> bytes:
    """Frame *payload* as the SDK does."""
    body = compress_theirs(payload, THEIRS[compression])
    return frame_message(Message(body, terminal=False, compression=THEIRS[compression]))


def failure_after(data: bytes) -> str:
    """Return the code with which a reader refuses *data*."""
    reader = FrameReader()
    assert list(reader.feed(data)) == []
    reader.close()
    assert reader.failure is not None
    assert reader.failure.status == 400
    return str(reader.failure.body["code"])


@given(st.lists(st.tuples(payloads, st.sampled_from(Compression)), max_size=5), st.data())
def test_frames_of_the_sdk_are_read_however_they_are_cut(
    sent: list[tuple[bytes, Compression]], data: st.DataObject
) -> None:
    stream = b"".join(theirs(*one) for one in sent)
    reader = FrameReader()
    found: list[bytes] = []
    at = 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        found += reader.feed(stream[at : at + step])
        at += step
    reader.close()
    assert reader.failure is None
    assert found == [payload for payload, _ in sent]


@given(payloads, st.sampled_from(Compression))
def test_the_sdk_reads_our_frames(payload: bytes, compression: Compression) -> None:
    message = deframe_message(encode_frame(payload, compression))
    is_compressed = compression is not Compression.NONE and len(payload) >= 1024
    assert message.compression == THEIRS[compression if is_compressed else Compression.NONE]
    assert not message.terminal
    body = decompress(message.body, compression, 3000, "It") if is_compressed else message.body
    assert body == payload


def test_a_terminal_frame_holds_the_status_and_the_error() -> None:
    message = deframe_message(encode_terminal(S2Error.of("invalid", "no")))
    assert message.terminal
    assert message.body == (422).to_bytes(2, "big") + b'{"code":"invalid","message":"no"}'


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_last_frame_that_is_cut_short_is_a_failure(cut: int) -> None:
    assert failure_after(theirs(b"12345678")[:cut]) == "bad_frame"


@pytest.mark.parametrize(
    "frame",
    [
        b"\x00\x00\x00",
        b"\x00\x00\x01\x80",
        b"\x00\x00\x03\x80\x01\xf4",
        b"\x00\x00\x01\x60",
        *(bytes((0, 0, 1, 1 << bit)) for bit in range(4)),
        (MAX_FRAME + 1).to_bytes(3, "big"),
        b"\xff\xff\xff",
        b"\x00\x00\x05\x20nope",
        b"\x00\x00\x05\x40nope",
    ],
    ids=repr,
)
def test_frames_that_mean_nothing_are_refused_as_soon_as_that_is_known(frame: bytes) -> None:
    assert failure_after(frame) == "bad_frame"


def test_what_came_before_a_bad_frame_is_given_and_nothing_after_it() -> None:
    reader = FrameReader()
    assert list(reader.feed(theirs(b"a") + theirs(b"b") + b"\x00\x00\x00" + theirs(b"c"))) == [b"a", b"b"]
    assert reader.failure is not None
    assert list(reader.feed(theirs(b"d"))) == []


@pytest.mark.parametrize("compression", [Compression.ZSTD, Compression.GZIP])
def test_a_small_frame_that_becomes_large_is_refused_before_it_is_large(compression: Compression) -> None:
    bomb = compress(bytes(64 * 1024 * 1024), compression)
    assert len(bomb) < MAX_FRAME
    assert failure_after(len(bomb + b"!").to_bytes(3, "big") + bytes((compression << 5,)) + bomb) == "bad_frame"


def test_frames_are_decompressed_one_by_one() -> None:
    large = compress(bytes(MAX_FRAME - 1), Compression.ZSTD)
    frame = (len(large) + 1).to_bytes(3, "big") + bytes((Compression.ZSTD << 5,)) + large
    many = frame * (256 * 1024 // len(frame))
    reader, count = FrameReader(), 0
    tracemalloc.start()
    try:
        for payload in reader.feed(many):
            count += 1
            assert len(payload) == MAX_FRAME - 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count > 500, "a gigabyte in all"
    assert peak < 8 * MAX_FRAME


def test_a_frame_that_does_not_tell_its_size_is_decompressed_within_the_limit() -> None:
    unsized = zstandard.ZstdCompressor(write_content_size=False)
    assert decompress(unsized.compress(b"x" * 5000), Compression.ZSTD, 5000, "It") == b"x" * 5000
    with pytest.raises(S2Error):
        decompress(unsized.compress(bytes(64 * 1024 * 1024)), Compression.ZSTD, 5000, "It")


@pytest.mark.parametrize("compression", [Compression.ZSTD, Compression.GZIP])
def test_compressed_data_that_is_cut_short_is_refused(compression: Compression) -> None:
    whole = compress(bytes(range(256)) * 20, compression)
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        with pytest.raises(S2Error):
            decompress(whole[:cut], compression, MAX_FRAME, "It")


@pytest.mark.parametrize("compression", [Compression.ZSTD, Compression.GZIP])
def test_what_follows_compressed_data_is_refused_and_not_forgotten(compression: Compression) -> None:
    for more in (b"!", compress(b"more", compression)):
        with pytest.raises(S2Error):
            decompress(compress(b"x" * 100, compression) + more, compression, MAX_FRAME, "It")


def test_exactly_the_limit_is_taken() -> None:
    assert decompress(gzip.compress(b"x" * 100), Compression.GZIP, 100, "It") == b"x" * 100
    with pytest.raises(S2Error):
        decompress(gzip.compress(b"x" * 101), Compression.GZIP, 100, "It")


@pytest.mark.parametrize(
    ("header", "best"),
    [
        ("", Compression.NONE),
        ("identity, br", Compression.NONE),
        ("gzip, deflate", Compression.GZIP),
        ("gzip;q=0.5, ZSTD ", Compression.ZSTD),
    ],
)
def test_the_best_accepted_compression_is_chosen(header: str, best: Compression) -> None:
    assert accepted(header) is best
