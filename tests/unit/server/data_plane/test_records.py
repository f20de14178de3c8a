"""What may be appended, in JSON and otherwise; names; queries."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.channel import Channel, Io, Record
from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard
from sessions_core.domain.ids import AddressingKey, EnvironmentId, PartId
from sessions_server.data_plane.failures import S2Error, token_of
from sessions_server.data_plane.json_forms import decode_append_input, encode_read_batch, is_base64
from sessions_server.data_plane.names import basin_of, parse_stream, stream_of
from sessions_server.data_plane.records import AppendInput, Operation, Position, guard_of, make_record
from sessions_server.data_plane.requests import Allowance, Form, ReadQuery, form_of, parse_segment

COMMAND = [(b"", b"trim")]


def code_of(refusal: pytest.ExceptionInfo[S2Error]) -> str:
    return str(refusal.value.body["code"])


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=3), st.text())
def test_texts_are_read_raw_and_as_base64(headers: list[tuple[str, str]], body: str) -> None:
    raw = {"records": [{"headers": headers, "body": body}]}

    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    binary = {"records": [{"headers": [[encoded(n), encoded(v)] for n, v in headers], "body": encoded(body)}]}
    [one] = decode_append_input(json.dumps(raw).encode(), as_base64=False).records
    assert (one.headers, one.body) == (tuple(headers), body.encode())
    assert decode_append_input(json.dumps(binary).encode(), as_base64=True).records == (one,)


@given(st.binary())
def test_bytes_come_back_from_base64_as_they_are_and_raw_as_text(body: bytes) -> None:
    records = [Record(3, 5, body)]
    shown = json.loads(encode_read_batch(records, Position(4, 5), as_base64=True))
    assert base64.b64decode(shown["records"][0].get("body", "")) == body
    assert shown["tail"] == {"seq_num": 4, "timestamp": 5}
    raw = json.loads(encode_read_batch(records, None, as_base64=False))
    assert raw["records"][0].get("body", "") == body.decode(errors="replace")
    assert "tail" not in raw


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b"[]", "bad_json"),
        (b"{}", "bad_json"),
        (b'{"records":[{"body":1}]}', "bad_json"),
        (b'{"records":[{"headers":[["a"]]}]}', "bad_json"),
        (b'{"records":[{}],"match_seq_num":-1}', "bad_json"),
        (b'{"records":[{"body":"\xff"}]}', "bad_json"),
        (b'{"records":[]}', "invalid"),
        (b'{"records":[{}],"fencing_token":"' + b"x" * 37 + b'"}', "invalid"),
        (b'{"records":' + b"[" * 5000, "bad_json"),
        (b'{"records":[' + b"{}," * 1000 + b"{}]}", "invalid"),
        (b'{"records":[{"headers":[' + b'["a",""],' * 10_000 + b'["a",""]]}]}', "invalid"),
    ],
)
def test_other_json_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(S2Error) as refusal:
        decode_append_input(body, as_base64=False)
    assert code_of(refusal) == code


@pytest.mark.parametrize("body", ["?", "YQ", "YQ=", "ä"])
def test_what_is_no_base64_is_refused(body: str) -> None:
    with pytest.raises(S2Error) as refusal:
        decode_append_input(json.dumps({"records": [{"body": body}]}).encode(), as_base64=True)
    assert code_of(refusal) == "invalid"


def test_formats_have_two_names_each() -> None:
    assert [is_base64(name) for name in (None, "raw", "json", "base64", " json-binsafe ")] == [
        False,
        False,
        False,
        True,
        True,
    ]
    with pytest.raises(S2Error) as refusal:
        is_base64("hex")
    assert code_of(refusal) == "bad_header"


def test_the_id_of_an_envelope_is_the_part_id() -> None:
    assert make_record((), b'{"data":{"id":"x"},"id":"abc"}').part_id == PartId("abc")
    assert make_record((), b'{"data":1,"id":"\\u00e4"}').part_id == PartId("ä")
    for body in (b"", b"text", b'{"data":1}', b'{"data":1,"id":""}', b'{"data":1,"id":7}', b'{"id":"a","data":1}'):
        assert make_record((), body).part_id is None
    assert make_record([(b"trigger-control", b"x")], b'{"data":1,"id":"abc"}').part_id is None


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], b'{"data":1,"id":"~sessions:session-closed"}'),
        ([(b"\xff", b"x")], b""),
        ([(b"a", b"\xff")], b""),
        ([(b"a", b"x"), (b"", b"trim")], bytes(8)),
        ([*COMMAND, (b"a", b"x")], bytes(8)),
        (COMMAND, bytes(7)),
        ([(b"", b"delete")], b""),
        ([(b"", b"fence")], b"x" * 37),
        ([(b"", b"fence")], b"\xff"),
    ],
)
def test_records_that_break_a_rule_are_refused(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    with pytest.raises(S2Error) as refusal:
        make_record(headers, body)
    assert (refusal.value.status, code_of(refusal)) == (422, "invalid")


def test_a_batch_has_limits() -> None:
    def batch(count: int, size: int) -> AppendInput:
        return AppendInput(tuple(make_record((), b"x" * size) for _ in range(count)))

    assert batch(1000, 1).size == 9000
    assert batch(2, 512 * 1024 - 8).size == 1024 * 1024
    for count, size in ((0, 0), (1001, 1), (1, 1024 * 1024 - 7), (2, 512 * 1024 - 7)):
        with pytest.raises(S2Error) as refusal:
            batch(count, size)
        assert code_of(refusal) == "invalid"


def test_a_command_is_alone_and_says_what_it_does() -> None:
    trim = AppendInput((make_record(COMMAND, (7).to_bytes(8, "big")),))
    assert (trim.operation, trim.first_kept) == (Operation.TRIM, 7)
    fence = AppendInput((make_record([(b"", b"fence")], b"live:3"),))
    assert (fence.operation, fence.new_token) == (Operation.FENCE, "live:3")
    assert AppendInput((make_record((), b""),)).operation is Operation.APPEND
    with pytest.raises(S2Error):
        AppendInput((*trim.records, make_record((), b"")))


@pytest.mark.parametrize("guard", [UNTOUCHED, Guard.live(1), Guard.idle(3), SEALED])
def test_a_guard_is_a_fencing_token_and_back(guard: Guard) -> None:
    assert guard_of(token_of(guard)) == guard


def test_other_tokens_are_no_guards() -> None:
    assert [guard_of(text) for text in ("epoch-3", "live:", "live:01", "LIVE:1", "live:1 ")] == [None] * 5


@given(st.text(min_size=1).filter(lambda text: "\x00" not in text), st.sampled_from(Io))
def test_a_stream_has_the_name_of_its_channel(key: str, io: Io) -> None:
    name = stream_of(Channel(EnvironmentId("env"), AddressingKey(key), io))
    assert name.isascii()
    assert name.count("/") == 2
    assert parse_stream(name) == (key, io)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        "sessions/a",
        "sessions//in",
        "sessions/a/up",
        "s/a/in",
        "sessions/%ff/in",
        "sessions/a/in/b",
        "sessions/%00/in",
    ],
)
def test_other_names_are_no_streams(name: str) -> None:
    assert parse_stream(name) is None


def test_basins_have_names_that_every_client_takes() -> None:
    for environment in ("env_one", "ENV/ä", ""):
        name = basin_of(environment)
        assert 8 <= len(name) <= 48
        assert name.replace("-", "a").isalnum()
        assert name == name.lower()
    assert basin_of("a") != basin_of("b")


def test_a_segment_is_decoded_once() -> None:
    assert parse_segment("sessions%2Fa%252Fb%2Fout") == "sessions/a%2Fb/out"
    for segment in ("", "%ff"):
        with pytest.raises(S2Error) as refusal:
            parse_segment(segment)
        assert code_of(refusal) == "bad_path"


@pytest.mark.parametrize(
    ("header", "form"),
    [
        (None, None),
        ("application/json; charset=utf-8", Form.JSON),
        ("application/vnd.x+json", Form.JSON),
        ("application/protobuf, */*", Form.PROTOBUF),
        ("Application/X-Protobuf", Form.PROTOBUF),
        ("s2s/proto", Form.SESSION),
        ("text/event-stream", Form.EVENTS),
        ("*/*", None),
    ],
)
def test_forms_have_names(header: str | None, form: Form | None) -> None:
    assert form_of(header) is form


def test_a_query_is_read() -> None:
    query = ReadQuery.parse("seq_num=5&count=2&bytes=100&until=7&wait=3&clamp=true&unknown=x")
    assert query == ReadQuery(seq_num=5, count=2, bytes=100, until=7, wait=3, clamp=True)
    assert ReadQuery.parse("").longest_silence == float("inf")
    assert ReadQuery.parse("count=1").longest_silence == 0
    assert ReadQuery.parse("count=1&wait=9").longest_silence == 9
    one = ReadQuery.parse("count=5000&wait=600").for_one_answer()
    assert (one.count, one.bytes, one.wait) == (1000, 1024 * 1024, 60)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("seq_num=-1", "bad_query"),
        ("seq_num=", "bad_query"),
        ("seq_num=1&seq_num=2", "bad_query"),
        ("count=1.5", "bad_query"),
        (f"timestamp={2**64}", "bad_query"),
        ("wait=" + "9" * 5000, "bad_query"),
        ("clamp=yes", "bad_query"),
        ("seq_num=1&timestamp=1", "invalid"),
        ("timestamp=5&until=5", "invalid"),
    ],
)
def test_other_queries_are_refused(text: str, code: str) -> None:
    with pytest.raises(S2Error) as refusal:
        ReadQuery.parse(text)
    assert code_of(refusal) == code


def test_a_reader_of_events_comes_back_where_it_was() -> None:
    query = ReadQuery(seq_num=0, count=10, bytes=100).after_event("6,3,80")
    assert (query.seq_num, query.count, query.bytes) == (7, 7, 20)
    for text in ("", "6", "6,3", "6,3,x", "6,3,80,1"):
        with pytest.raises(S2Error) as refusal:
            ReadQuery().after_event(text)
        assert code_of(refusal) == "bad_header"


@pytest.mark.parametrize(
    ("query", "taken"),
    [({}, 5), ({"count": 2}, 2), ({"bytes": 30}, 3), ({"until": 4}, 4), ({"count": 0}, 0), ({"bytes": 9}, 0)],
)
def test_an_allowance_is_not_overdrawn(query: dict[str, Any], taken: int) -> None:
    allowance = Allowance.of(ReadQuery(**query))
    records = [Record(seq, seq, b"xx") for seq in range(5)]
    assert [allowance.take(record) for record in records] == [seq < taken for seq in range(5)]
    assert (allowance.given_count, allowance.given_bytes) == (taken, 10 * taken)
