"""Server-sent events, however the network cuts them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.channel import Batch, Record
from sessions_server.cli.events import Frame, FrameReader, read_batch
from sessions_server.sse import DONE, encode_frames, encode_ping

STREAM = (
    b'event: batch\nid: 4\ndata: {"records":[]}\n\n: comment\n\nevent: ping\r\ndata:x\r\n\r\n'
    b"data: one\ndata:  two\n\nevent: lost\n\ndata: \xc3\xa4\n\n" + DONE + b"data: unfinished\n"
)
FRAMES = [
    Frame("batch", '{"records":[]}'),
    Frame("ping", "x"),
    Frame("message", "one\n two"),
    Frame("message", "ä"),
    Frame("message", "[DONE]"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_frames_are_the_same_wherever_a_stream_is_cut(cuts: list[int]) -> None:
    reader = FrameReader()
    bounds = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(bounds)]
    assert [frame for piece in pieces for frame in reader.feed(piece)] == FRAMES


def test_what_the_server_writes_is_read_back() -> None:
    records = (
        Record(3, 10, b'{"data":"\xc3\xa4","id":"p"}'),
        Record(4, 11, b"", (("trigger-control", "x"), ("a", ""))),
        Record(5, 12, b"12345678", (("", "trim"),)),
    )
    batch = Batch(records, 6, 12)
    [frame] = [frame for piece in encode_frames(batch) for frame in FrameReader().feed(piece)]
    read = read_batch(frame)
    assert (read.records, read.next_seq, read.timestamp) == (records, 6, 12)


def test_a_ping_is_a_batch_without_records() -> None:
    [frame] = FrameReader().feed(encode_ping(7, 12, 99))
    assert (read_batch(frame).records, read_batch(frame).next_seq) == ((), 7)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "5", "{}", '{"tail": 5}', '{"tail": {"seq_num": 1, "timestamp": 1}, "records": [5]}']
)
def test_what_is_neither_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="something else"):
        read_batch(Frame("batch", content))


def test_half_a_character_is_no_trouble() -> None:
    body = json.dumps({"data": "\ud800"})
    frame = Frame(
        "batch",
        json.dumps(
            {
                "records": [{"seq_num": 0, "timestamp": 1, "body": body + "\ud800"}],
                "tail": {"seq_num": 1, "timestamp": 1},
            }
        ),
    )
    assert read_batch(frame).records[0].seq == 0
