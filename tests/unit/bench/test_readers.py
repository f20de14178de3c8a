"""What the benchmarks' readers make of the bytes they get."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.broadcast import inspect
from benchmarks.load import Writer
from benchmarks.readers import Piece, Reader, deliveries, events
from harness.chain import Chain
from sessions_core.domain.channel import Batch, Record, data_record
from sessions_core.domain.ids import PartId
from sessions_server.sse import encode_frames, encode_ping

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def links(count: int) -> list[str]:
    chain = Chain("w")
    return [chain.link() for _ in range(count)]


def frame(seq: int, *texts: str) -> bytes:
    records = tuple(Record(seq + n, 1, data_record(text, PartId("p")).body) for n, text in enumerate(texts))
    return b"".join(encode_frames(Batch(records, seq + len(texts), 1)))


def answer(*frames: bytes) -> bytes:
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data in frames)


def cut(data: bytes, places: Sequence[int]) -> list[Piece]:
    """Cut *data* into pieces that come one second after the other."""
    bounds = [0, *sorted({place % len(data) for place in places} - {0}), len(data)]
    return [(float(n), data[a:b]) for n, (a, b) in enumerate(pairwise(bounds))]


def reader_of(*frames: bytes) -> Reader:
    reader = Reader(b"")
    reader.pieces.append((0.0, answer(*frames)))
    return reader


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_events_are_found_wherever_the_bytes_were_cut(places: list[int]) -> None:
    texts = links(4)
    sent = [encode_ping(0, 0, 0), frame(0, texts[0]), frame(1, texts[1], texts[2]), frame(3, texts[3])]
    pieces = cut(answer(*sent), places)
    found = list(events(pieces))
    assert [event + b"\n\n" for _, event in found] == sent
    assert [text for _, event in found for _, text in deliveries(event)] == texts
    for came_at, event in found:
        received = b"".join(data for at, data in pieces if at <= came_at)
        assert event in received, "an event has come when its last byte has"
        before = b"".join(data for at, data in pieces if at < came_at)
        assert event + b"\n\n" not in before, "and not later"


def test_a_ping_delivers_nothing() -> None:
    assert deliveries(encode_ping(7, 1, 1).rstrip(b"\n")) == ()


def test_an_event_that_was_cut_off_is_not_one() -> None:
    data = answer(frame(0, links(1)[0]))
    assert list(events([(0.0, data[:-10])])) == []


def test_readers_that_got_everything_once_and_in_order_are_no_problem() -> None:
    one, two, three = links(3)
    crew = [reader_of(frame(0, one), frame(1, two, three)), reader_of(frame(0, one, two), frame(2, three))]
    found = inspect(crew, 3)
    assert found.problems == []
    assert sorted(seq for seq, _ in found.arrivals) == [0, 0, 1, 1, 2, 2]


ONE, TWO, THREE = links(3)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([frame(0, ONE), frame(1, TWO)], id="the last is lost"),
        pytest.param([frame(0, ONE), frame(2, THREE)], id="one in the middle is lost"),
        pytest.param([frame(0, ONE), frame(1, TWO), frame(1, TWO), frame(2, THREE)], id="doubled"),
        pytest.param([frame(1, TWO), frame(0, ONE), frame(2, THREE)], id="out of order"),
        pytest.param([frame(0, ONE), frame(1, TWO.replace('""}', '"x"}')), frame(2, THREE)], id="changed"),
        pytest.param([frame(0, ONE), frame(1, ONE), frame(2, THREE)], id="another record's text"),
    ],
)
def test_whatever_else_a_reader_got_is_a_problem(frames: list[bytes]) -> None:
    whole = reader_of(frame(0, ONE, TWO, THREE))
    found = inspect([whole, reader_of(*frames)], 3)
    assert found.problems
    assert all(problem.startswith("1 readers:") for problem in found.problems)


def test_a_writer_names_its_part_ids_as_it_sends_them() -> None:
    writer = Writer(name="w", session="s", token="t", io="out")
    request = writer.requests(3)[2]
    assert b"POST /realtime/v1/sessions/s/out/append " in request
    assert f"X-Part-Id: {writer.part_id(2)}\r\n".encode() in request
