"""Protobuf messages: what the official SDK writes we read, and the other way round."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest
import s2_sdk._generated.s2.v1.s2_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.channel import Record
from sessions_server.data_plane.failures import S2Error
from sessions_server.data_plane.protobuf import decode_append_input, encode_append_ack, encode_read_batch
from sessions_server.data_plane.records import MAX_HEADERS, MAX_RECORDS, Ack, Position

MIB = 1024 * 1024

numbers = st.integers(0, 2**64 - 1)
positions = st.builds(Position, numbers, numbers)
names = st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable())
header_lists = st.lists(st.tuples(names, st.text(max_size=8)), max_size=3)
stored = st.builds(Record, numbers, numbers, st.binary(max_size=300), header_lists.map(tuple))


def place(position: pb.StreamPosition) -> tuple[int, int]:
    return (position.seq_num, position.timestamp)


@given(
    st.lists(st.tuples(st.none() | numbers, header_lists, st.binary(max_size=300)), min_size=1, max_size=4),
    st.none() | numbers,
    st.none() | st.text(max_size=9),
)
def test_what_the_sdk_appends_is_read_as_it_is(
    given_records: list[tuple[int | None, list[tuple[str, str]], bytes]], seq: int | None, token: str | None
) -> None:
    sent = pb.AppendInput(match_seq_num=seq, fencing_token=token)
    for timestamp, headers, body in given_records:
        record = sent.records.add(body=body)
        if timestamp is not None:
            record.timestamp = timestamp
        for name, value in headers:
            record.headers.add(name=name.encode(), value=value.encode())
    found = decode_append_input(sent.SerializeToString())
    assert (found.match_seq_num, found.fencing_token) == (seq, token)
    expected = [(tuple(headers), body) for _, headers, body in given_records]
    assert [(record.headers, record.body) for record in found.records] == expected


@given(positions, positions, positions)
def test_the_sdk_reads_our_acks(start: Position, end: Position, tail: Position) -> None:
    ack = pb.AppendAck()
    ack.ParseFromString(encode_append_ack(Ack(start, end, tail)))
    assert ack.HasField("start")
    assert ack.HasField("end")
    assert ack.HasField("tail")
    assert [place(ack.start), place(ack.end), place(ack.tail)] == [
        (one.seq, one.timestamp) for one in (start, end, tail)
    ]


@given(st.lists(stored, max_size=5), st.none() | positions)
def test_the_sdk_reads_our_batches(records: list[Record], tail: Position | None) -> None:
    batch = pb.ReadBatch()
    batch.ParseFromString(encode_read_batch(records, tail))
    found = [
        Record(one.seq_num, one.timestamp, one.body, tuple((h.name.decode(), h.value.decode()) for h in one.headers))
        for one in batch.records
    ]
    assert found == records
    assert (place(batch.tail) if batch.HasField("tail") else None) == (tail and (tail.seq, tail.timestamp))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_refusal(data: bytes) -> None:
    with suppress(S2Error):
        assert decode_append_input(data).records


def test_every_message_that_is_cut_short_is_refused() -> None:
    sent = pb.AppendInput(match_seq_num=300, fencing_token="token")
    record = sent.records.add(body=b"x" * 200, timestamp=2**40)
    record.headers.add(name=b"name", value=b"value")
    whole = sent.SerializeToString()
    first = len(whole) - len(pb.AppendInput(match_seq_num=300, fencing_token="token").SerializeToString())
    for cut in range(len(whole)):
        if cut in (first, first + 3):
            continue  # between two fields it is a whole message
        with pytest.raises(S2Error) as refusal:
            decode_append_input(whole[:cut])
        assert refusal.value.body["code"] == ("bad_proto" if cut else "invalid")


def test_fields_that_we_do_not_know_are_skipped() -> None:
    unknown = b"\x78\x05" + b"\x79" + bytes(8) + b"\x7a\x02hi" + b"\x7d" + bytes(4)
    record = unknown + b"\x1a\x04body" + unknown
    message = unknown + b"\x0a" + bytes((len(record),)) + record + unknown
    found = decode_append_input(message)
    assert [one.body for one in found.records] == [b"body"]
    assert (found.match_seq_num, found.fencing_token) == (None, None)


@pytest.mark.parametrize(
    "message",
    [
        b"\x0b",  # a group, which is no longer part of protobuf
        b"\x00\x01",  # field 0
        b"\x0a\x80",  # a length without its end
        b"\x0a" + b"\xff" * 10,  # a varint that never ends
        b"\x10" + b"\xff" * 9 + b"\x7f",  # more than 64 bits
        b"\x08\x01",  # records as a number
        b"\x12\x01a",  # match_seq_num as bytes
        b"\x1a\x02\xff\xfe",  # a token that is no text
        b"\x0a\x02\x1a\x05",  # a body longer than its record
    ],
    ids=repr,
)
def test_what_is_no_such_message_is_refused(message: bytes) -> None:
    with pytest.raises(S2Error) as refusal:
        decode_append_input(message)
    assert (refusal.value.status, refusal.value.body["code"]) == (400, "bad_proto")


def field(number: int, content: bytes) -> bytes:
    """Write a field that holds bytes."""
    length, head = len(content), bytearray((number << 3 | 2,))
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(head) + bytes((length,)) + content


MANY = {
    "records": b"\x0a\x00" * MIB,
    "headers": field(1, b"\x12\x00" * MIB),
    "headers with a name": field(1, b"\x12\x03\x0a\x01a" * (2 * MIB // 5)),
    "headers of many records": field(1, b"\x12\x03\x0a\x01a" * 1000) * 400,
    "unknown fields": b"\x78\x00" * MIB,
}


@pytest.mark.parametrize("message", MANY.values(), ids=MANY)
def test_a_message_that_takes_long_to_read_is_not_read_to_its_end(message: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(S2Error, match="at most") as refusal:
            decode_append_input(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal.value.status == 422
    assert peak < 24 * MIB


def test_as_many_records_and_headers_as_a_batch_may_have_are_read() -> None:
    sent = pb.AppendInput()
    for _ in range(MAX_RECORDS):
        record = sent.records.add(timestamp=1, body=b"x")
        for number in range(MAX_HEADERS // MAX_RECORDS):
            record.headers.add(name=b"%d" % number, value=b"x")
    assert len(decode_append_input(sent.SerializeToString()).records) == MAX_RECORDS
