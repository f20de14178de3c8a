"""Records as text and as JSON, for people and programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sessions_core.chat import user_message
from sessions_core.domain.channel import Io, NewRecord, Record, control_record, data_record
from sessions_core.domain.ids import PartId
from sessions_server.cli.text import Style, one_line, printable, table, to_json
from sessions_server.cli.transcript import Transcript, describe_record, raw_text

EVIL = "\x1b]0;owned\x07\x9b31m\r\x7f\u202e\u2066end"
PLAIN, COLOURED = Style(), Style(has_colours=True)


def records(*new: NewRecord) -> list[Record]:
    return [Record(seq, 1000 + seq, given.body, given.headers) for seq, given in enumerate(new)]


def data(value: Any) -> NewRecord:
    return data_record(value, PartId("p"))


def transcript(*new: NewRecord, io: Io = Io.OUT, style: Style = PLAIN) -> str:
    text = Transcript(io, style)
    return "".join(text.add(record) for record in records(*new))


def answer(*deltas: str) -> list[NewRecord]:
    chunks: list[dict[str, Any]] = [{"type": "start", "messageId": "m"}, {"type": "text-start", "id": "1"}]
    chunks += [{"type": "text-delta", "id": "1", "delta": delta} for delta in deltas]
    chunks += [{"type": "text-end", "id": "1"}, {"type": "finish"}]
    return [data(chunk) for chunk in chunks]


COMPLETE = control_record("turn-complete", {"session-in-event-id": "4", "public-access-token": "secret"})


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character in "\n\t" for character in text)


# --- text ---


@pytest.mark.parametrize("text", [EVIL, "\x00", "\ud800", "a\x85b\u2028c", "\x1b[2J"])
def test_nothing_that_steers_a_terminal_passes(text: str) -> None:
    assert is_harmless(printable(text))
    assert is_harmless(one_line(text))
    assert is_harmless(to_json([text]))
    assert json.loads(to_json({"text": text})) == {"text": text}
    printable(text).encode()


def test_what_is_escaped_can_still_be_read() -> None:
    assert printable("a\x1b[31mb\x9b\u202e") == r"a\x1b[31mb\x9b\u202e"


@pytest.mark.parametrize("text", ["", "plain", "two\nlines\twith tab", "äöü ß 漢字 🦀 e\u0301", '"quotes" \\n'])
def test_everything_else_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert json.loads(to_json(text)) == text


def test_one_line_is_one_line() -> None:
    assert one_line(" a\n\n\tb\n") == "a b"


def test_a_table_aligns_its_columns() -> None:
    assert table([("a", "bb", "c"), ("aaa", "b", "")]) == ["a    bb  c", "aaa  b"]
    assert table([]) == []


# --- transcripts ---


def test_deltas_are_joined_and_an_answer_ends_its_line() -> None:
    text = transcript(*answer("you ", "said:\n", "hi"), COMPLETE)
    assert text == "you said:\nhi\n-- turn complete (seq 7, in up to 4)\n"


def test_an_answer_that_ends_in_a_newline_has_no_second_one() -> None:
    assert transcript(*answer("hi\n"), COMPLETE).splitlines() == ["hi", "-- turn complete (seq 5, in up to 4)"]


def test_a_text_that_is_cut_off_by_something_else_ends_its_line() -> None:
    cut = [*answer("half")[:3], data({"type": "error", "errorText": "no more"}), *answer("whole")]
    assert transcript(*cut) == "half\nerror: no more\nwhole\n"


def test_other_chunks_and_other_data_are_one_line_each() -> None:
    others = [data({"type": "data-x", "data": 1}), data("text"), data({"no": "type"}), data([1, None])]
    assert transcript(*others).splitlines() == ['{"type": "data-x", "data": 1}', "text", '{"no": "type"}', "[1, null]"]


def test_broken_bodies_and_broken_chunks_are_shown_and_do_no_harm() -> None:
    broken = [NewRecord(b"\xff no envelope"), data({"type": "text-delta", "delta": 5}), data({"type": ["x"]})]
    assert len(transcript(*broken).splitlines()) == 3


def test_commands_are_not_shown() -> None:
    assert transcript(NewRecord(b"12345678", (("", "trim"),))) == ""


def test_control_records_say_what_they_mean_and_no_token() -> None:
    closed = control_record("turn-complete", {"session-closed": "true", "session-closed-reason": "done"})
    other = control_record("own", {"a": "b"})
    text = transcript(COMPLETE, control_record("upgrade-required"), closed, other, control_record("turn-complete"))
    assert text.splitlines() == [
        "-- turn complete (seq 0, in up to 4)",
        "-- another run takes over (seq 1)",
        "-- session closed: done (seq 2)",
        "-- own (seq 3) a=b",
        "-- turn complete (seq 4, in up to an unknown seq)",
    ]


def test_what_users_do_is_shown() -> None:
    def message(**payload: Any) -> NewRecord:
        return data(json.dumps({"kind": "message", "payload": payload}))

    said = [
        data(json.dumps(user_message("hello\nthere"))),
        data('{"kind": "stop"}'),
        message(trigger="regenerate-message"),
        message(trigger="action", action={"type": "undo"}),
        message(trigger="close"),
        message(message={"parts": [{"type": "tool-x"}]}),
        data("no json"),
        data('{"kind": "my-own"}'),
    ]
    assert transcript(*said, io=Io.IN).splitlines() == [
        "> hello",
        "there",
        "-- stop",
        "-- regenerate-message",
        '-- action {"type": "undo"}',
        "-- close",
        '> {"parts": [{"type": "tool-x"}]}',
        "no json",
        '{"kind": "my-own"}',
    ]


@pytest.mark.parametrize("io", Io)
def test_nothing_in_any_record_steers_a_terminal(io: Io) -> None:
    evil: list[NewRecord] = [
        *answer(EVIL),
        data(EVIL),
        data({"type": EVIL, EVIL: EVIL}),
        data({"type": "error", "errorText": EVIL}),
        data(json.dumps(user_message(EVIL))),
        data(json.dumps({"kind": "message", "payload": {"trigger": EVIL}})),
        control_record(EVIL, {EVIL: EVIL}),
        control_record("turn-complete", {"session-in-event-id": EVIL}),
        control_record("turn-complete", {"session-closed": "true", "session-closed-reason": EVIL}),
        NewRecord(EVIL.encode()),
    ]
    assert is_harmless(transcript(*evil, io=io))
    assert all(is_harmless(to_json(describe_record(record))) for record in records(*evil))


def test_colours_are_there_only_when_wanted() -> None:
    assert "\x1b[2m-- turn complete" in transcript(COMPLETE, style=COLOURED)
    assert "\x1b[31merror: x\x1b[0m" in transcript(data({"type": "error", "errorText": "x"}), style=COLOURED)
    assert "\x1b" not in transcript(*answer("x"), COMPLETE, data({"type": "error", "errorText": "x"}))


# --- JSON and raw ---


def test_a_record_as_json_has_always_the_same_members() -> None:
    said, complete, trim = records(data({"a": 1}), COMPLETE, NewRecord(b"12345678", (("", "trim"),)))
    assert describe_record(said) == {
        "seq": 0,
        "timestamp": 1000,
        "kind": "data",
        "control": None,
        "headers": [],
        "id": "p",
        "data": {"a": 1},
    }
    assert describe_record(complete)["control"] == "turn-complete"
    assert describe_record(complete)["headers"][1] == ["session-in-event-id", "4"]
    assert (describe_record(trim)["kind"], describe_record(trim)["data"]) == ("command", None)
    assert {tuple(describe_record(record)) for record in (said, complete, trim)} == {tuple(describe_record(said))}


def test_raw_is_the_data_alone() -> None:
    assert [raw_text(record) for record in records(data("x\x1by"), data({"a": "ä"}), COMPLETE)] == [
        "x\x1by\n",
        '{"a": "ä"}\n',
        "",
    ]


def test_numbers_that_json_does_not_have_are_null() -> None:
    value = {"a": [float("nan"), float("inf"), 1.5], "b": "\x1b"}
    assert to_json(value) == r'{"a": [null, null, 1.5], "b": "\u001b"}'
    assert '"a": null' in to_json({"a": float("-inf")}, indent=2)
