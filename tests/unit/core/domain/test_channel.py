import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessions_core.domain.channel import (
    DEEPEST,
    MAX_RECORD_BYTES,
    Batch,
    Envelope,
    Headers,
    NewRecord,
    Record,
    RecordKind,
    committed_by,
    control_record,
    data_record,
    encode_json,
    envelope_id,
    kind_of,
    last_visible,
    sanitise_input,
    trim_command,
)
from sessions_core.domain.ids import PartId
from sessions_core.errors import InvalidError, RecordTooLargeError

any_text = st.text(st.characters(exclude_categories=()), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
spelled = st.sampled_from(
    ["actionSource", "action\\u0053ource", "payload", "p\\u0061yload", "webhook", "web\\u0068ook", "x"]
).map('"{}"'.format)
"""Texts of JSON that matter to the sanitiser, in several spellings."""
json_texts = st.recursive(
    spelled
    | st.sampled_from(["1", "1e999", "-1E999", "NaN", "Infinity", "1" * 400, "null", "true", '"\\ud800"', " ", ""]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(spelled, inner), max_size=4).map(
            lambda members: "{" + ",\n".join(f"{name} : {value}" for name, value in members) + "}"
        )
    ),
    max_leaves=12,
)
"""JSON as others write it, repeated members and strange numbers included, and what is nearly JSON."""


def paired(value: Any) -> Any:
    """Join adjacent surrogates, as every reader of JSON does."""
    return json.loads(json.dumps(value))


# --- Kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ((), RecordKind.DATA),
        ((("x", "y"),), RecordKind.DATA),
        ((("trigger-control", "turn-complete"),), RecordKind.CONTROL),
        ((("x", "y"), ("trigger-control", "any")), RecordKind.CONTROL),
        ((("trigger-control", ""),), RecordKind.CONTROL),
        ((("Trigger-Control", "turn-complete"),), RecordKind.DATA),
        ((("", "trim"),), RecordKind.COMMAND),
        ((("", "fence"), ("trigger-control", "x")), RecordKind.COMMAND),
        ((("x", "y"), ("", "trim")), RecordKind.DATA),
    ],
)
def test_headers_alone_tell_the_kind(headers: Headers, kind: RecordKind) -> None:
    assert kind_of(headers) is kind
    assert Record(0, 0, b"", headers).kind is kind


def test_a_control_record_names_its_subtype_first() -> None:
    made = control_record("turn-complete", {"session-in-event-id": "7"})
    record = Record(3, 0, made.body, made.headers)
    assert made.body == b""
    assert made.headers[0] == ("trigger-control", "turn-complete")
    assert record.control == "turn-complete"
    assert record.header("session-in-event-id") == "7"
    assert record.header("Session-In-Event-Id") is None


def test_only_control_records_have_a_subtype() -> None:
    assert Record(0, 0, b"", (("", "trim"), ("trigger-control", "x"))).control is None
    assert Record(0, 0, b"{}").control is None


def test_a_trim_command_holds_the_first_kept_seq_as_eight_bytes() -> None:
    command = trim_command(258)
    assert command.body == b"\0\0\0\0\0\0\x01\x02"
    assert kind_of(command.headers) is RecordKind.COMMAND


# --- Envelopes ------------------------------------------------------------------------------------


@given(json_values, any_text)
@example("\ud800", "\udfff")
@example({"\ud800": ["\U0001f600"]}, "")
def test_an_envelope_gives_back_any_json_and_any_part_id(data: Any, part: str) -> None:
    record = data_record(data, PartId(part))
    assert record.headers == ()
    assert record.part_id == part
    envelope = Envelope.parse(record.body)
    assert envelope is not None
    assert envelope.data == paired(data)
    assert envelope.id == paired(part)


@given(any_text)
def test_a_text_stays_a_text(text: str) -> None:
    envelope = Envelope.parse(data_record(text, PartId("p")).body)
    assert envelope is not None
    assert isinstance(envelope.data, str)


@pytest.mark.parametrize(
    ("body", "data"),
    [(b'{"data":[1],"id":"p"}', [1]), (b"plain", "plain"), (b'{"id":"p"}', '{"id":"p"}'), (b"\xff", "\ufffd")],
)
def test_the_data_of_a_record_is_the_envelopes_or_the_body_as_text(body: bytes, data: Any) -> None:
    assert Record(0, 0, body).data == data


@given(json_values)
def test_json_is_written_compactly_and_in_utf8(value: Any) -> None:
    text = encode_json(value)
    text.encode()
    assert json.loads(text) == paired(value)


def test_text_is_written_as_it_is_read() -> None:
    assert encode_json({"a": ["é", "👋", None]}) == '{"a":["é","👋",null]}'


def test_a_fresh_part_id_need_not_be_compared() -> None:
    record = data_record(1, PartId("p"), dedupe=False)
    assert record.part_id is None
    assert Envelope.parse(record.body) == Envelope(1, "p")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b'{"id":"x"}',
        b"\xff\xfe",
        b'{"data":',
        b"[" * 100_000,
        b'{"data":1e999,"id":"x"}',
        b'{"data":[-1e999],"id":"x"}',
        b'{"data":NaN,"id":"x"}',
        b'{"data":{"a":-Infinity},"id":"x"}',
        b'{"data":%b1%b,"id":"x"}' % (b"[" * DEEPEST, b"]" * DEEPEST),
        b'{"data":%b1%b,"id":"x"}' % (b'{"a":' * 900, b"}" * 900),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_envelope_is_none(body: bytes) -> None:
    assert Envelope.parse(body) is None


@pytest.mark.parametrize(
    "data", [b"[" * (DEEPEST - 2) + b"]" * (DEEPEST - 2), b"[" + b"[]," * 1000 + b"0]", b'"' + b"[{" * 1000 + b'"']
)
def test_what_was_read_as_an_envelope_can_be_written_again(data: bytes) -> None:
    envelope = Envelope.parse(b'{"data":%b,"id":"x"}' % data)
    assert envelope is not None
    assert encode_json(envelope.data) == data.decode()


@given(st.binary(max_size=80) | json_texts.map(str.encode))
def test_any_bytes_are_an_envelope_that_can_be_written_again_or_none(body: bytes) -> None:
    for given_body in (body, b'{"data":%b,"id":"x"}' % body):
        envelope = Envelope.parse(given_body)
        if envelope is not None:
            data_record(envelope.data, PartId(envelope.id))


@given(json_values, any_text)
def test_the_id_is_found_without_reading_the_data(data: Any, part: str) -> None:
    body = data_record(data, PartId(part)).body
    envelope = Envelope.parse(body)
    assert envelope is not None
    assert envelope_id(body) == (envelope.id or None)


@given(st.binary(max_size=60), st.binary(max_size=30))
def test_looking_for_an_id_never_fails(data: bytes, part: bytes) -> None:
    for body in (data, b'{"data":%b,"id":"%b"}' % (data, part)):
        assert envelope_id(body) != ""


@pytest.mark.parametrize("body", [b'{"data":1}', b'{"data":1,"id":7}', b'{"data":1,"id":null,"more":2}'])
def test_an_envelope_without_a_usable_id_has_the_empty_one(body: bytes) -> None:
    assert Envelope.parse(body) == Envelope(1, "")


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        data_record(value, PartId("p"))


# --- Size -----------------------------------------------------------------------------------------


def test_a_record_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    body = b"x" * (MAX_RECORD_BYTES - 8)
    record = NewRecord(body)
    assert record.metered_size == 1_048_576
    record.check_size()
    with pytest.raises(RecordTooLargeError, match=r"1048577 bytes .* 1048576") as caught:
        NewRecord(body + b"x").check_size()
    assert (caught.value.size, caught.value.limit) == (1_048_577, 1_048_576)


def test_headers_count_with_two_bytes_each_and_in_utf8() -> None:
    assert NewRecord(b"abc", (("é", "xyz"), ("", ""))).metered_size == 8 + 3 + (2 + 2 + 3) + 2
    room = MAX_RECORD_BYTES - 8 - 2 - 4
    NewRecord(b"x" * room, (("ab", "cd"),)).check_size()
    with pytest.raises(RecordTooLargeError):
        NewRecord(b"x" * (room + 1), (("ab", "cd"),)).check_size()


def test_a_record_with_a_small_body_may_still_be_too_large() -> None:
    with pytest.raises(RecordTooLargeError):
        control_record("note", {"text": "x" * MAX_RECORD_BYTES}).check_size()


# --- Sanitiser ------------------------------------------------------------------------------------


def action(**payload: Any) -> str:
    return json.dumps({"kind": "message", "payload": {"trigger": "action", **payload}})


def test_a_forged_webhook_mark_is_removed_and_the_rest_stays() -> None:
    cleaned = sanitise_input(action(actionSource="webhook", action={"n": [1, "é"]}, actionSourceX=1))
    assert json.loads(cleaned) == json.loads(action(action={"n": [1, "é"]}, actionSourceX=1))


@pytest.mark.parametrize(
    "spelling", ["action\\u0053ource", "\\u0061ctionSource", "".join(f"\\u{ord(c):04X}" for c in "actionSource")]
)
@pytest.mark.parametrize("value", ['"webhook"', '"web\\u0068ook"', '"\\u0077ebhook"'])
@pytest.mark.parametrize("member", ["payload", "p\\u0061yload"])
def test_spelling_it_with_escapes_does_not_help(spelling: str, value: str, member: str) -> None:
    cleaned = sanitise_input(f'{{"{member}":{{"{spelling}":{value},"x":1}}}}')
    assert json.loads(cleaned) == {"payload": {"x": 1}}


def test_the_last_of_repeated_members_counts_as_in_every_reader() -> None:
    forged = '{"payload":{"actionSource":"user","actionSource":"webhook"}}'
    assert json.loads(sanitise_input(forged)) == {"payload": {}}
    honest = '{"payload":{"actionSource":"webhook","actionSource":"user"}}'
    assert sanitise_input(honest) == honest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text",
        '"actionSource"',
        '{"actionSource":"webhook"}',
        '{"payload":{"actionSource":"user"},  "x" : 1.0}',
        '{"payload":{"actionSource":null}}',
        '{"payload":{"actionSource":["webhook"]}}',
        '{"payload":{"nested":{"actionSource":"webhook"}}}',
        '{"payload":[{"actionSource":"webhook"}]}',
        '{"payload":"{\\"actionSource\\":\\"webhook\\"}"}',
        '[{"payload":{"actionSource":"webhook"}}]',
        '{"payload":{"actionSource":"webhook"}',
        '{"payload":{"actionSource":"webhook"}} trailing',
        '{"payload":{"x":"\\u00e9"}}',
        '"\\ud800"',
    ],
)
def test_everything_else_passes_byte_for_byte(text: str) -> None:
    assert sanitise_input(text) is text


@given(any_text | json_values.map(json.dumps) | json_values.map(lambda v: json.dumps({"payload": v}, indent=1)))
def test_any_text_without_the_mark_passes_untouched(text: str) -> None:
    assert sanitise_input(text) is text


@given(st.dictionaries(st.sampled_from(["actionSource", "a", "b"]), st.sampled_from(["webhook", "x", 1, None])))
def test_no_text_leaves_with_the_mark(payload: dict[str, Any]) -> None:
    cleaned = json.loads(sanitise_input(json.dumps({"payload": payload})))["payload"]
    assert cleaned.get("actionSource") != "webhook"
    assert cleaned == {k: v for k, v in payload.items() if (k, v) != ("actionSource", "webhook")}


@given(json_texts, st.sampled_from(["payload", "p\\u0061yload"]))
def test_whatever_is_sent_nobody_who_reads_it_finds_the_mark(text: str, member: str) -> None:
    for sent in (text, f'{{"kind":"message","{member}":{text}}}'):
        with suppress(InvalidError):
            cleaned = sanitise_input(sent)
            assert not carries_the_mark(cleaned)
            assert cleaned == sent or carries_the_mark(sent)


def carries_the_mark(text: str) -> bool:
    try:
        return bool(json.loads(text)["payload"]["actionSource"] == "webhook")
    except (ValueError, KeyError, TypeError):
        return False


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "-Infinity"])
def test_a_mark_beside_a_number_that_cannot_be_written_again_is_refused(number: str) -> None:
    with pytest.raises(InvalidError, match="number"):
        sanitise_input(f'{{"payload":{{"actionSource":"webhook","n":{number}}}}}')
    honest = f'{{"payload":{{"actionSource":"user","n":{number}}}}}'
    assert sanitise_input(honest) is honest


def test_a_mark_in_nesting_of_any_depth_is_removed_or_refused() -> None:
    for depth in range(900, 1100):
        sent = f'{{"payload":{{"actionSource":"webhook","n":{"[" * depth}{"]" * depth}}}}}'
        with suppress(InvalidError):
            assert "actionSource" not in sanitise_input(sent)


def test_a_number_that_other_readers_take_does_not_smuggle_the_mark_through() -> None:
    forged = '{"payload":{"actionSource":"webhook","n":' + "1" * 5000 + "}}"
    assert "actionSource" not in sanitise_input(forged)


@pytest.mark.parametrize("key", ["actionSource", "action\\u0053ource"])
def test_nesting_that_other_readers_take_does_not_smuggle_the_mark_through(key: str) -> None:
    forged = f'{{"payload":{{"{key}":"webhook","n":' + "[" * 100_000 + "]" * 100_000 + "}}"
    with pytest.raises(InvalidError, match="nested"):
        sanitise_input(forged)


# --- Reading back ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "committed"),
    [
        ((("trigger-control", "turn-complete"), ("session-in-event-id", "12")), 12),
        ((("trigger-control", "turn-complete"), ("session-in-event-id", "0")), 0),
        ((("trigger-control", "turn-complete"),), -1),
        ((("trigger-control", "turn-complete"), ("session-in-event-id", "")), -1),
        ((("trigger-control", "turn-complete"), ("session-in-event-id", "-1")), -1),
        ((("trigger-control", "turn-complete"), ("session-in-event-id", "1.0")), -1),
        ((("trigger-control", "turn-complete"), ("session-in-event-id", "²")), -1),
        ((("trigger-control", "turn-complete"), ("session-in-event-id", "\u0661")), -1),
        ((("trigger-control", "turn-complete"), ("session-in-event-id", "9" * 16)), -1),
        ((("trigger-control", "upgrade-required"), ("session-in-event-id", "12")), None),
        ((("session-in-event-id", "12"),), None),
        ((("", "trim"), ("trigger-control", "turn-complete"), ("session-in-event-id", "12")), None),
    ],
)
def test_only_a_turn_complete_commits_input(headers: Headers, committed: int | None) -> None:
    assert committed_by(Record(0, 0, b"", headers)) == committed


def test_the_last_visible_record_is_found_behind_commands() -> None:
    command, data = Record(2, 0, b"", (("", "trim"),)), Record(1, 0, b"{}")
    assert last_visible([command, data, Record(0, 0, b"")]) is data
    assert last_visible([command]) is None
    assert last_visible([]) is None


def test_a_batch_is_encoded_once_for_all_its_readers() -> None:
    batch = Batch((Record(4, 0, b"a"), Record(5, 0, b"b")), 6)
    calls: list[Batch] = []

    def encode(given: Batch) -> bytes:
        calls.append(given)
        return b"".join(record.body for record in given.records)

    assert [batch.encoded(encode) for _ in range(3)] == [b"ab"] * 3
    assert calls == [batch]


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 12))
def test_a_batch_is_cut_at_a_seq(first: int, count: int, start: int) -> None:
    batch = Batch(tuple(Record(first + i, 0, b"") for i in range(count)), first + count, 9)
    cut = batch.since(start)
    assert [r.seq for r in cut.records] == [s for s in range(first, first + count) if s >= start]
    assert (cut.next_seq, cut.timestamp) == (first + count, 9)
    assert (cut is batch) == (start <= first or count == 0)
