"""Answers that go on after a crash: what a reader who has seen everything ends up with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from time import process_time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sessions_core.chat.chunks import Chunk
from sessions_core.chat.partial import PartialAnswer, Replay, Shown, find_partial

START = {"type": "start", "messageId": "m"}


def text(delta: str, part: str = "t") -> dict[str, Any]:
    return {"type": "text-delta", "id": part, "delta": delta}


def begin(part: str = "t") -> dict[str, Any]:
    return {"type": "text-start", "id": part}


def end(part: str = "t") -> dict[str, Any]:
    return {"type": "text-end", "id": part}


def data(value: Any) -> dict[str, Any]:
    return {"type": "data-x", "data": value}


@st.composite
def answers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Whole answers: a few parts, texts cut into deltas anyhow."""
    chunks: list[dict[str, Any]] = [{"type": "start-step"}]
    for number in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            chunks.append(data(draw(st.integers(0, 1))))
        else:
            deltas = draw(st.lists(st.text("ab", max_size=3), max_size=4))
            part = f"text-{number}"
            chunks += [begin(part), *(text(delta, part) for delta in deltas), end(part)]
    return chunks


def read(chunks: Iterable[Chunk]) -> list[tuple[str, Any]]:
    """Read chunks as a page does: parts in their order, texts joined, void ones dropped. Refuse what breaks a page."""
    parts: list[tuple[str, Any]] = []
    texts: dict[str, int] = {}
    for chunk in chunks:
        match chunk["type"]:
            case "data-restart":
                assert not texts, "a part that is void was left open"
                parts = []
            case "text-start":
                texts[chunk["id"]] = len(parts)
                parts.append(("text", ""))
            case "text-delta":
                parts[texts[chunk["id"]]] = ("text", parts[texts[chunk["id"]]][1] + chunk["delta"])
            case "text-end":
                del texts[chunk["id"]]
            case "data-x":
                parts.append(("data", chunk["data"]))
            case _:
                pass
    assert not texts, "a part was left open"
    return parts


def answer_again(partial: Sequence[Chunk], answer: Iterable[Chunk]) -> list[Chunk]:
    """Return what is on the wire in the end: what was there, and what the second attempt adds."""
    replay = Replay(find_partial([START, *partial], "m", is_whole=True))
    added = [one for chunk in answer for one in replay.admit(chunk)] + replay.finish()
    return [*partial, *added]


@given(answers(), answers(), st.data())
def test_a_reader_ends_up_with_the_second_answer_whatever_the_first_was(
    first: list[dict[str, Any]], second: list[dict[str, Any]], choice: st.DataObject
) -> None:
    partial = first[: choice.draw(st.integers(0, len(first)))]
    assert read(answer_again(partial, second)) == read(second)


@given(answers(), st.data())
def test_an_answer_that_is_given_again_is_neither_repeated_nor_begun_anew(
    answer: list[dict[str, Any]], choice: st.DataObject
) -> None:
    partial = answer[: choice.draw(st.integers(0, len(answer)))]
    wire = answer_again(partial, answer)
    assert "data-restart" not in {chunk["type"] for chunk in wire}
    assert read(wire) == read(answer)
    letters = [letter for chunk in wire for letter in chunk.get("delta", "")]
    assert len(letters) == sum(len(chunk.get("delta", "")) for chunk in answer)


@given(answers(), answers(), answers(), st.data())
def test_that_holds_over_any_number_of_crashes(
    first: list[dict[str, Any]], second: list[dict[str, Any]], third: list[dict[str, Any]], choice: st.DataObject
) -> None:
    wire: list[Chunk] = [*first[: choice.draw(st.integers(0, len(first)))]]
    for attempt in (second, third, third):
        replay = Replay(find_partial([START, *wire], "m", is_whole=True))
        done = attempt if attempt is not second else attempt[: choice.draw(st.integers(0, len(attempt)))]
        wire = [*wire, *(one for chunk in done for one in replay.admit(chunk))]
        rest = replay.finish() if attempt is not second else []
        wire = [*wire, *rest]
    assert read(wire) == read(third)


def test_how_a_text_was_cut_up_does_not_matter() -> None:
    wire = answer_again([begin(), text("one t"), text("wo thr")], [begin(), text("o"), text("ne two three"), end()])
    assert wire[3:] == [text("ee"), end()]


def test_another_text_takes_the_place_of_the_one_before() -> None:
    wire = answer_again(
        [{"type": "start-step"}, begin(), text("Well, I")],
        [{"type": "start-step"}, begin(), text("We"), text("re"), end()],
    )
    added = wire[3:]
    restart = {"type": "data-restart", "data": {}}
    assert added == [
        end(),
        {"type": "finish-step"},
        restart,
        {"type": "start-step"},
        begin(),
        text("We"),
        text("re"),
        end(),
    ]


def test_a_shorter_answer_takes_the_place_of_the_one_before() -> None:
    assert read(answer_again([begin(), text("one"), end(), data(1)], [begin(), text("one"), end()])) == [
        ("text", "one")
    ]
    assert read(answer_again([begin(), text("one")], [])) == []


def test_values_are_compared_as_they_are_stored() -> None:
    assert answer_again([data({"1": [2]})], [data({1: (2,)})]) == [data({"1": [2]})]


def test_true_is_not_1() -> None:
    assert read(answer_again([data({"a": [True]})], [data({"a": [1]})])) == [("data", {"a": [1]})]
    assert "data-restart" in {chunk["type"] for chunk in answer_again([data(True)], [data(1)])}
    assert answer_again([data({"a": 1, "b": 2})], [data({"b": 2, "a": 1})]) == [data({"a": 1, "b": 2})]


def test_a_data_part_does_not_take_the_place_of_a_void_one() -> None:
    """Readers look for its id in the whole message; in a void place nobody would see it."""
    named = {**data(1), "id": "a"}
    wire = answer_again([named], [data(0), named, {**data(2), "id": "a"}])
    assert [chunk.get("id") for chunk in wire] == ["a", None, None, "a-again", "a-again"]
    assert answer_again(wire, [data(0), named, {**data(2), "id": "a"}]) == wire, "the same again is the same"
    again = answer_again(wire, [named])
    assert again[len(wire) :] == [{"type": "data-restart", "data": {}}, {**named, "id": "a-again-again"}]


def test_a_long_answer_is_replayed_in_time_that_is_linear_in_its_length() -> None:
    """Were each delta to cost as much as all before it, this would take a minute, and the process would stand still."""
    deltas = [text("x" * 500) for _ in range(16_000)]
    began = process_time()
    assert answer_again(deltas, deltas) == deltas
    assert process_time() - began < 10


def test_only_chunks_of_this_message_are_found() -> None:
    other = {"type": "start", "messageId": "other"}
    found = find_partial(
        ["text", None, {"no": "type"}, other, text("x"), START, begin(), text("a")], "m", is_whole=True
    )
    assert found.chunks == (begin(), text("a"))
    assert found.text == "a"
    assert find_partial([text("x")], "m", is_whole=True) == PartialAnswer()
    assert not find_partial([START, text("x"), other], "m", is_whole=True)


def test_an_answer_whose_beginning_is_too_far_back_is_ended_and_given_anew() -> None:
    found = find_partial([text("long"), text("er")], "m", is_whole=False)
    replay = Replay(found)
    assert [chunk["type"] for chunk in replay.admit({"type": "start-step"})] == [
        "text-end",
        "data-restart",
        "start-step",
    ]
    assert replay.admit(begin()) == [begin()]


def test_what_a_step_ends_needs_no_other_end() -> None:
    shown = Shown()
    shown.note([{"type": "start-step"}, begin("a"), {"type": "reasoning-start", "id": "b"}])
    assert [chunk["type"] for chunk in shown.end_parts()] == ["text-end", "reasoning-end"]
    shown.note([{"type": "start-step"}])
    assert len(shown.end_parts()) == 2, "a step's beginning ends nothing"
    shown.note([{"type": "finish-step"}])
    assert shown.end_parts() == shown.end_step() == []


def test_tool_input_is_compared_like_text() -> None:
    def piece(delta: str) -> dict[str, Any]:
        return {"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": delta}

    assert answer_again([piece('{"a"'), piece(":1")], [piece('{"a":'), piece("1}")])[2:] == [piece("}")]
    broken = {"type": "text-delta", "id": "t"}
    assert json.dumps(answer_again([broken], [broken])) == json.dumps([broken])
