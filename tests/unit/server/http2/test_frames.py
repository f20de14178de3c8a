from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from sessions_server.http2.frames import FrameReader, ViolationError, goaway

SETTINGS = SettingsFrame(0).serialize()


def reader(*, is_greeted: bool = True) -> FrameReader:
    made = FrameReader(max_frame=16_384, max_block=1000)
    if is_greeted:
        made.feed(SETTINGS)
        assert made.next() is not None
    return made


def headers(size: int, *, flags: list[str]) -> bytes:
    return HeadersFrame(1, bytes(size), flags=flags).serialize()


def continuation(size: int, *, flags: list[str]) -> bytes:
    return ContinuationFrame(1, bytes(size), flags=flags).serialize()


def refusal(made: FrameReader, data: bytes) -> ErrorCodes:
    made.feed(data)
    with pytest.raises(ViolationError) as caught:
        list(iter(made.next, None))
    return caught.value.code


FRAMES = st.one_of(
    st.builds(lambda data: DataFrame(1, data), st.binary(max_size=300)),
    st.just(PingFrame(0, b"12345678")),
    st.just(SettingsFrame(0)),
    st.just(PriorityFrame(7, stream_weight=1)),
)


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_frames_come_out_whole_however_they_came_in(frames: list[Frame], cuts: list[int]) -> None:
    expected = [frame.serialize() for frame in frames]
    left, found, made, turn = b"".join(expected), [], reader(), 0
    while left:
        size = cuts[turn % len(cuts)]
        made.feed(left[:size])
        left, turn = left[size:], turn + 1
        while (frame := made.next()) is not None:
            found.append(frame)
    assert [frame.raw for frame in found] == expected
    assert [frame.stream_id for frame in found] == [frame.stream_id for frame in frames]


def test_a_long_frame_is_refused_at_its_head() -> None:
    head = DataFrame(1, bytes(16_385)).serialize()[:9]
    assert refusal(reader(), head) is ErrorCodes.FRAME_SIZE_ERROR


def test_settings_come_first() -> None:
    assert refusal(reader(is_greeted=False), PingFrame(0, b"12345678").serialize()) is ErrorCodes.PROTOCOL_ERROR


def test_hundreds_of_settings_are_refused() -> None:
    many = SettingsFrame(0, settings=dict.fromkeys(range(100, 133), 1)).serialize()
    assert refusal(reader(), many) is ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "block",
    [
        headers(1001, flags=["END_HEADERS"]),
        headers(500, flags=[]) + continuation(501, flags=["END_HEADERS"]),
        headers(0, flags=[]) + continuation(100, flags=[]) * 11,
    ],
)
def test_a_header_block_has_one_limit_however_it_is_cut(block: bytes) -> None:
    assert refusal(reader(), block) is ErrorCodes.ENHANCE_YOUR_CALM


def test_blocks_are_counted_one_by_one() -> None:
    made = reader()
    made.feed((headers(600, flags=[]) + continuation(300, flags=["END_HEADERS"])) * 5)
    assert sum(1 for _ in iter(made.next, None)) == 10


def test_nothing_comes_between_the_parts_of_a_block() -> None:
    assert refusal(reader(), headers(1, flags=[]) + SETTINGS) is ErrorCodes.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("data", "is_in_headers"),
    [
        (b"", False),
        (headers(5, flags=["END_HEADERS"]), False),
        (headers(5, flags=["END_HEADERS"])[:12], True),
        (headers(5, flags=[]), True),
        (headers(5, flags=[]) + continuation(5, flags=["END_HEADERS"]), False),
        (DataFrame(1, b"12345").serialize()[:12], False),
    ],
)
def test_it_knows_when_headers_are_half_there(data: bytes, *, is_in_headers: bool) -> None:
    made = reader()
    made.feed(data)
    while made.next() is not None:
        pass
    assert made.is_in_headers is is_in_headers


@pytest.mark.parametrize(
    ("frame", "is_empty"),
    [
        (DataFrame(1, b""), True),
        (DataFrame(1, b"a"), False),
        (DataFrame(1, b"", pad_length=9, flags=["PADDED"]), True),
        (DataFrame(1, b"a", pad_length=9, flags=["PADDED"]), False),
    ],
)
def test_padding_is_nothing(frame: Frame, *, is_empty: bool) -> None:
    made = reader()
    made.feed(frame.serialize())
    found = made.next()
    assert found is not None
    assert found.is_empty is is_empty


def test_a_goodbye_is_what_the_protocol_says() -> None:
    frame, length = Frame.parse_frame_header(memoryview(raw := goaway(7, ErrorCodes.ENHANCE_YOUR_CALM, "why"))[:9])
    frame.parse_body(memoryview(raw)[9 : 9 + length])
    assert isinstance(frame, GoAwayFrame)
    assert (frame.last_stream_id, frame.error_code, frame.additional_data) == (7, 11, b"why")


def test_a_goodbye_gives_its_code() -> None:
    made = reader()
    made.feed(goaway(7, ErrorCodes.ENHANCE_YOUR_CALM))
    found = made.next()
    assert found is not None
    assert found.goaway_code == ErrorCodes.ENHANCE_YOUR_CALM
    assert refusal(reader(), b"\0\0\x07\x07\0\0\0\0\0" + bytes(7)) is ErrorCodes.FRAME_SIZE_ERROR
