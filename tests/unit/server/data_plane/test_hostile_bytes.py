"""What S2's clients send, damaged or made up: it is read or refused in S2's words, within its limits, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import s2_sdk._generated.s2.v1.s2_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.channel import Record
from sessions_server.data_plane import json_forms, protobuf
from sessions_server.data_plane.compression import Compression, accepted, compress, decompress, encoding_of
from sessions_server.data_plane.failures import S2Error
from sessions_server.data_plane.frames import MAX_FRAME, FrameReader, encode_frame
from sessions_server.data_plane.names import basin_of, parse_stream
from sessions_server.data_plane.records import AppendInput, guard_of, make_record
from sessions_server.data_plane.requests import ReadQuery, form_of, parse_segment

any_text = st.text(st.characters(exclude_categories=()), max_size=40)
"""Lone surrogates are in it: that is what bytes which are no UTF-8 look like where headers and paths have been read."""
payloads = st.binary(max_size=200)
edges = st.sampled_from([0, 1, 127, 128, 2**31 - 1, 2**32, 2**53, 2**63 - 1, 2**64 - 1])
inputs = st.builds(
    lambda records, seq, token: pb.AppendInput(records=records, match_seq_num=seq, fencing_token=token),
    st.lists(
        st.builds(
            lambda headers, body, time: pb.AppendRecord(
                headers=[pb.Header(name=name, value=value) for name, value in headers], body=body, timestamp=time
            ),
            st.lists(st.tuples(st.sampled_from([b"", b"a", b"\xff"]), st.sampled_from([b"trim", b"fence", b""]))),
            st.sampled_from([b"", b"x" * 200, bytes(8), b'{"data":1,"id":"~sessions:x"}', b'{"data":1,"id":"\xff"}']),
            st.none() | edges,
        ),
        max_size=4,
    ),
    st.none() | edges,
    st.none() | st.text(max_size=40),
)


def damaged(data: bytes, draw: Callable[..., Any]) -> bytes:
    """Return *data* with some bytes changed, put in or left out."""
    found = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(found)))
        found[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(found)


def read_in_pieces(data: bytes, cuts: list[int]) -> tuple[list[bytes], str | None]:
    reader, found, start = FrameReader(), list[bytes](), 0
    for end in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        found += reader.feed(data[start:end])
        assert len(reader._buffer) < MAX_FRAME + 4
        start = end
    reader.close()
    return found, None if reader.failure is None else str(reader.failure)


@given(st.data(), st.lists(st.integers(0, 10_000), max_size=6))
def test_damaged_frames_are_read_up_to_the_damage_wherever_they_are_cut(data: st.DataObject, cuts: list[int]) -> None:
    sent = data.draw(st.lists(st.tuples(payloads | st.just(bytes(2000)), st.sampled_from(Compression)), max_size=4))
    stream = damaged(b"".join(encode_frame(*one) for one in sent), data.draw)
    found, failure = read_in_pieces(stream, cuts)
    assert (found, failure) == read_in_pieces(stream, [])
    assert failure is None or "bad_frame" in failure


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_are_frames_or_a_failure(data: bytes, cuts: list[int]) -> None:
    assert read_in_pieces(data, cuts) == read_in_pieces(data, [])


@given(st.data(), st.sampled_from(Compression))
def test_damaged_compressed_bytes_are_unpacked_within_the_limit_or_refused(
    data: st.DataObject, compression: Compression
) -> None:
    packed = damaged(compress(data.draw(payloads) * 20, compression), data.draw)
    with suppress(S2Error):
        assert len(decompress(packed, compression, 5000, "It")) <= 5000


@given(inputs, st.data())
def test_a_damaged_message_is_read_or_refused(message: Any, data: st.DataObject) -> None:
    raw = damaged(message.SerializeToString(), data.draw)
    with suppress(S2Error):
        found = protobuf.decode_append_input(raw)
        assert 1 <= len(found.records) <= 1000
        _ = found.operation


members = st.recursive(
    st.none() | st.booleans() | edges | st.floats() | st.sampled_from(["", "trim", "fence", "YQ==", "\ud800", "\x00"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["records", "headers", "body", "timestamp", "match_seq_num", "fencing_token"]), inner
        )
    ),
    max_leaves=15,
)


@given(members.map(json.dumps).map(str.encode) | st.binary(max_size=60), st.booleans())
def test_any_json_is_an_append_or_refused(body: bytes, as_base64: bool) -> None:
    with suppress(S2Error):
        assert json_forms.decode_append_input(body, as_base64=as_base64).records


@given(st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5)), max_size=3), st.binary(max_size=40))
def test_any_record_is_made_or_refused_and_can_be_shown(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    with suppress(S2Error):
        record = make_record(headers, body)
        shown = Record(0, 0, record.body, record.headers)
        for as_base64 in (True, False):
            json_forms.encode_read_batch([shown], None, as_base64=as_base64)
        protobuf.encode_read_batch([shown], None)
        AppendInput((record,))


@given(st.lists(st.tuples(any_text, any_text), max_size=3), st.binary(max_size=20))
def test_whatever_a_stranger_has_stored_can_be_shown(headers: list[tuple[str, str]], body: bytes) -> None:
    shown = Record(0, 0, body, tuple(headers))
    json.loads(json_forms.encode_read_batch([shown], None, as_base64=True))
    protobuf.encode_read_batch([shown], None)


queries = st.lists(
    st.tuples(
        st.sampled_from(["seq_num", "timestamp", "tail_offset", "count", "bytes", "until", "wait", "clamp", "x"]),
        edges.map(str) | st.sampled_from(["", "-1", "true", "%00", "%ff", "\udcff", "1.5", str(2**64), "٣"]) | any_text,
    ),
    max_size=4,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))


@given(queries | any_text)
def test_any_query_is_read_or_refused(text: str) -> None:
    with suppress(S2Error):
        query = ReadQuery.parse(text)
        one = query.for_one_answer()
        assert one.count is not None
        assert 0 <= one.count <= 1000
        assert query.longest_silence >= 0


@given(st.none() | any_text | st.lists(edges.map(str), max_size=4).map(",".join))
def test_any_last_event_id_is_read_or_refused(text: str | None) -> None:
    with suppress(S2Error):
        query = ReadQuery(count=5, bytes=50).after_event(text)
        assert query.seq_num is None or query.seq_num > 0
        assert (query.count or 0) >= 0


@given(any_text | st.text(alphabet="%0123456789abcdefC/sin\udcff", max_size=20).map("sessions%2F{}%2Fin".format))
def test_any_segment_is_a_name_or_refused(segment: str) -> None:
    with suppress(S2Error):
        parsed = parse_stream(parse_segment(segment))
        assert parsed is None or "\x00" not in parsed[0]


def test_a_segment_of_bytes_that_are_no_utf_8_is_refused() -> None:
    """HTTP/2 brings them as they are, and where they are read they become lone surrogates."""
    with pytest.raises(S2Error) as refusal:
        parse_segment(b"\xff".decode(errors="surrogateescape"))
    assert refusal.value.body["code"] == "bad_path"


@given(any_text)
def test_any_word_in_a_header_means_something_or_nothing(text: str) -> None:
    form_of(text)
    accepted(text)
    guard_of(text)
    for read in (json_forms.is_base64, encoding_of):
        with suppress(S2Error):
            read(text)


@given(st.text())
def test_every_environment_has_a_basin(environment: str) -> None:
    assert basin_of(environment) == basin_of(environment)
