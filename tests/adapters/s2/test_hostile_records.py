"""Records that strangers have put into a stream: each can be read, shown and compared, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from s2_sdk import SequencedRecord

from sessions_adapters.s2.records import PART_HEADER, entry_of, is_same, part_of, record_of
from sessions_core.domain.channel import Batch, NewRecord, committed_by
from sessions_core.domain.ids import PartId
from sessions_core.errors import InvalidError
from sessions_server.sse import encode_frames
from sessions_server.wire.responses import record_list

names = st.sampled_from([b"", PART_HEADER, b"trigger-control", b"session-in-event-id", b"\xff", b"\xed\xa0\x80"])
values = st.sampled_from([b"", b"turn-complete", b"trim", b"fence", b"9" * 30, b"\xffmark", b"\xed\xa0\x80"])
headers = st.lists(st.tuples(names | st.binary(max_size=6), values | st.binary(max_size=6)), max_size=4)
bodies = st.binary(max_size=40) | st.sampled_from(
    [b"", b'{"data":1,"id":"\xff"}', b'{"data":1e999,"id":"x"}', b'{"data":"' + b"[" * 5000 + b'","id":"\\ud800"}']
)
records = st.builds(
    lambda seq, time, found, body: SequencedRecord(seq_num=seq, timestamp=time, headers=found, body=body),
    st.integers(0, 2**53),
    st.integers(0, 2**53),
    headers,
    bodies,
)


@given(st.lists(records, min_size=1, max_size=4))
def test_every_record_is_read_and_shown(found: list[Any]) -> None:
    read = tuple(record_of(each) for each in found)
    for record in read:
        assert record.data is not None or record.body
        assert committed_by(record) is None or record.control is not None
    batch = Batch(read, read[-1].seq + 1, 1)
    [frame] = encode_frames(batch)
    shown = json.loads(frame.split(b"\ndata: ")[1])
    assert [each["seq_num"] for each in shown["records"]] == [record.seq for record in read]
    json.loads(msgspec.json.encode(record_list(batch)))


@given(st.lists(st.tuples(st.text(), st.text()), max_size=3), bodies, st.none() | st.text(max_size=8), records)
def test_a_record_of_ours_is_never_taken_for_a_strangers(
    pairs: list[tuple[str, str]], body: bytes, part: str | None, stranger: Any
) -> None:
    try:
        entry = entry_of(NewRecord(body, tuple(pairs), None if part is None else PartId(part)))
    except InvalidError:
        assert any(not name for name, _ in pairs)
        return
    stored = SequencedRecord(seq_num=5, timestamp=1, headers=entry.stored.headers, body=entry.stored.body)
    assert is_same(entry, stored)
    assert part is None or part_of(stored) == part.encode()
    assert record_of(stored).headers == tuple(pairs)
    assert not is_same(entry, stranger) or stranger.body == body
