"""The page's modules that ask nobody, by themselves: run where they are used, in the browser."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from harness.server import ServerProcess

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.needs_browser, pytest.mark.slow]

Read = Callable[..., Awaitable[Any]]

TURNS = """async ([inputs, outputs]) => {
    const { Transcript } = await import("/page/transcript.js");
    const transcript = new Transcript();
    for (const record of inputs) transcript.addInput(record);
    for (const record of outputs) transcript.addOutput(record);
    const turns = transcript.turns().map(({ said, answer, state, isReplaced }) => ({
        said: said.filter((one) => one.kind !== "stop").map((one) => one.text || one.kind),
        answer: (answer?.parts ?? []).map((part) => part.text ?? part.data).join("|"),
        error: answer?.error ?? null, state, isReplaced,
    }));
    return { turns, closed: transcript.closed, isBusy: transcript.isBusy, title: transcript.title };
}"""
WANTS = """async ([inputs, outputs]) => {
    const { Transcript } = await import("/page/transcript.js");
    const transcript = new Transcript();
    for (const record of inputs) transcript.addInput(record);
    return transcript.wants(outputs);
}"""
EVENTS = """async (pieces) => {
    const { EventParser } = await import("/page/sse.js");
    const parser = new EventParser();
    return pieces.flatMap((piece) => parser.push(piece));
}"""

DRAW = """async ([inputs, outputs]) => {
    const { Transcript } = await import("/page/transcript.js");
    const { drawTurns } = await import("/page/turns.js");
    const list = document.createElement("ol");
    const session = { transcript: new Transcript(), pending: [], closed: null };
    for (const record of inputs) session.transcript.addInput(record);
    for (const record of outputs) {
        session.transcript.addOutput(record);
        for (let time = 0; time < 2; time += 1) drawTurns(list, session, {});
    }
    return list.querySelector(".answer").textContent;
}"""
KEYED = """async (count) => {
    const { keyed } = await import("/page/dom.js");
    const list = document.createElement("ol");
    const keys = Array.from({ length: count }, (_, index) => `${index}-data-step`);
    const draw = () => keyed(list, keys, () => document.createElement("li"));
    draw();
    const began = performance.now();
    draw();
    return performance.now() - began;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ServerProcess(tmp_path_factory.mktemp("modules") / "data") as server:
        yield server.address


@pytest.fixture(scope="module")
async def page(address: str, browser: Any) -> AsyncGenerator[Page]:
    context = await browser.new_context()
    opened = await context.new_page()
    await opened.goto(address)
    yield opened
    await context.close()


@pytest.fixture
def read(page: Page) -> Read:
    async def turns(inputs: list[Any], outputs: list[Any]) -> Any:
        return await page.evaluate(TURNS, [numbered(inputs, "seqNum"), numbered(outputs, "seq_num")])

    return turns


def numbered(records: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{name: seq, "id": f"p{seq}", **record} for seq, record in enumerate(records)]


def say(text: str) -> dict[str, Any]:
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"data": json.dumps({"kind": "message", "payload": {"trigger": "submit-message", "message": message}})}


AGAIN = {"data": json.dumps({"kind": "message", "payload": {"trigger": "regenerate-message"}})}
STOP = {"data": json.dumps({"kind": "stop"})}
CLOSE = {"data": json.dumps({"kind": "message", "payload": {"trigger": "close"}})}


def chunk(kind: str, **members: Any) -> dict[str, Any]:
    return {"body": json.dumps({"data": {"type": kind, **members}, "id": "x"})}


def delta(text: str, part: str = "text-1") -> dict[str, Any]:
    return chunk("text-delta", id=part, delta=text)


def complete(covers: int | None, **more: str) -> dict[str, Any]:
    headers = [["trigger-control", "turn-complete"]]
    if covers is not None:
        headers.append(["session-in-event-id", str(covers)])
    return {"headers": headers + [[name.replace("_", "-"), value] for name, value in more.items()], "body": ""}


START = chunk("start", messageId="m")


def row(
    said: list[str], answer: str, state: str, *, error: str | None = None, replaced: bool = False
) -> dict[str, Any]:
    return {"said": said, "answer": answer, "state": state, "error": error, "isReplaced": replaced}


async def test_each_message_stands_with_its_answer(read: Read) -> None:
    done = await read(
        [say("one"), say("two")],
        [START, delta("1"), delta("!"), complete(0), START, delta("2"), complete(1)],
    )
    assert done["turns"] == [row(["one"], "1!", "done"), row(["two"], "2", "done")]
    assert (done["isBusy"], done["title"]) == (False, "one")


async def test_what_is_not_answered_waits_in_its_order(read: Read) -> None:
    outputs = [START, delta("1"), complete(0)]
    waiting = await read([say("one"), say("two"), say("three")], outputs)
    assert [turn["state"] for turn in waiting["turns"]] == ["done", "waiting", "queued"]
    answering = await read([say("one"), say("two"), say("three")], [*outputs, START, delta("2")])
    assert answering["turns"][1] == row(["two"], "2", "answering")
    assert answering["isBusy"]


async def test_an_answer_that_begins_anew_takes_the_place_of_what_a_dead_run_left(read: Read) -> None:
    half = [START, delta("half of"), delta(" it")]
    again = [chunk("start", messageId="another"), delta("all of it")]
    assert (await read([say("one")], [*half, *again]))["turns"] == [row(["one"], "all of it", "answering")]
    assert (await read([say("one")], [*half, *again, complete(0)]))["turns"] == [row(["one"], "all of it", "done")]


async def test_an_answer_goes_on_where_a_dead_run_has_left_it_or_says_that_it_is_void(read: Read) -> None:
    half, void = [START, delta("half of")], chunk("data-restart", data={})
    assert (await read([say("one")], [*half, delta(" it")]))["turns"] == [row(["one"], "half of it", "answering")]
    restarted = [*half, void, chunk("text-start", id="text-1"), delta("other"), complete(0)]
    assert (await read([say("one")], restarted))["turns"] == [row(["one"], "other", "done")]
    assert (await read([say("one")], [*half, void, complete(0)]))["turns"] == [row(["one"], "", "done")]


async def test_a_turn_may_deal_with_several_messages_or_with_none(read: Read) -> None:
    done = await read([say("one"), say("two")], [delta("hello"), complete(None), START, delta("both"), complete(1)])
    assert done["turns"] == [row([], "hello", "done"), row(["one", "two"], "both", "done")]


async def test_a_stop_belongs_to_the_answer_that_it_ends(read: Read) -> None:
    stopping = await read([say("one"), STOP], [START, delta("1")])
    assert stopping["turns"] == [row(["one"], "1", "stopping")]
    stopped = await read(
        [say("one"), STOP, say("two")], [START, delta("1"), complete(1), START, delta("2"), complete(2)]
    )
    assert [turn["state"] for turn in stopped["turns"]] == ["stopped", "done"]


async def test_a_stop_that_came_too_late_stops_nothing(read: Read) -> None:
    done = await read([say("one"), STOP, say("two")], [START, complete(0), START, delta("2"), complete(2)])
    assert [turn["state"] for turn in done["turns"]] == ["done", "done"]


async def test_an_answer_given_again_replaces_the_one_before(read: Read) -> None:
    done = await read([say("one"), AGAIN, AGAIN], [delta("a"), complete(0), delta("b"), complete(1), delta("c")])
    assert [(turn["answer"], turn["isReplaced"]) for turn in done["turns"]] == [("a", True), ("b", True), ("c", False)]


async def test_a_failure_is_shown_with_what_was_written(read: Read) -> None:
    done = await read([say("one")], [START, delta("1"), chunk("error", errorText="no"), complete(0)])
    assert done["turns"] == [row(["one"], "1", "failed", error="no")]


@pytest.mark.parametrize("half", [[], [START, delta("ha")]], ids=["not begun", "half"])
async def test_what_a_close_cuts_off_says_so(read: Read, half: list[Any]) -> None:
    outputs = [START, delta("1"), complete(0), *half, complete(2, session_closed="true", session_closed_reason="over")]
    closed = await read([say("one"), say("two"), CLOSE], outputs)
    assert closed["turns"][1] == row(["two"], "ha" if half else "", "cut")
    assert (closed["closed"], closed["isBusy"]) == ({"reason": "over"}, False)


async def test_a_part_with_the_same_id_is_replaced_and_a_passing_one_is_not_kept(read: Read) -> None:
    outputs = [
        chunk("data-progress", id="p", data="10 %"),
        chunk("data-progress", id="p", data="90 %"),
        chunk("data-note", data="kept"),
        chunk("data-note", data="passing", transient=True),
    ]
    assert (await read([say("one")], outputs))["turns"][0]["answer"] == "90 %|kept"


async def test_what_cannot_be_read_is_passed_over(read: Read) -> None:
    odd_inputs = [
        {"data": text} for text in ("no json", "null", "[]", '{"kind": 1}', '{"kind": "message", "payload": null}')
    ]
    odd_outputs: list[dict[str, Any]] = [
        {"body": body} for body in ("", "no json", "null", '{"data": null}', '{"data": {"type": 1}}')
    ]
    odd_outputs.append({"headers": [["", "trim"]], "body": "\x00"})
    read_on = await read([*odd_inputs[:4], say("one")], [*odd_outputs, delta("1"), complete(4)])
    assert read_on["turns"] == [row(["one"], "1", "done")]
    assert (await read(odd_inputs, []))["turns"] == [row(["say"], "", "waiting")]


async def test_a_record_that_comes_twice_counts_once(page: Page) -> None:
    outputs = numbered([delta("1"), delta("2"), complete(0)], "seq_num")
    done = await page.evaluate(TURNS, [numbered([say("one")], "seqNum") * 2, outputs + outputs])
    assert done["turns"] == [row(["one"], "12", "done")]


@pytest.mark.parametrize(
    ("inputs", "outputs", "wanted"),
    [
        ([], [], "no"),
        ([], [START], "may"),
        ([say("one")], [START], "no"),
        ([say("one")], [START, complete(0)], "no"),
        ([say("one")], [START, complete(0), START], "may"),
        ([say("one")], [START, complete(1)], "must"),
        ([STOP], [START], "may"),
    ],
)
async def test_an_answer_to_something_unknown_is_noticed(
    page: Page, inputs: list[Any], outputs: list[Any], wanted: str
) -> None:
    given = [numbered(inputs, "seqNum"), numbered(outputs, "seq_num")]
    assert await page.evaluate(WANTS, given) == wanted


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_events_are_put_together_from_pieces(page: Page, size: int) -> None:
    text = ': hello\n\nevent: batch\nid: 3\ndata: {"a":\ndata: 1}\n\nevent: empty\n\ndata: [DONE]\r\n\r\ndata: cut'
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert await page.evaluate(EVENTS, pieces) == [
        {"event": "batch", "data": '{"a":\n1}'},
        {"event": "message", "data": "[DONE]"},
    ]


# --- Drawing ---


@pytest.mark.parametrize("state", [5, True, {"a": 1}, ["yes"]], ids=str)
async def test_a_question_in_an_unknown_state_does_not_keep_the_rest_from_being_drawn(page: Page, state: Any) -> None:
    outputs = [
        chunk("data-approval", id="a", data={"question": {}, "options": [None, {}], "state": state}),
        delta("rest"),
    ]
    records = [numbered([say("go")], "seqNum"), numbered(outputs, "seq_num")]
    assert (await page.evaluate(DRAW, records)).endswith("rest")


async def test_an_answer_of_many_parts_is_drawn_in_a_time_that_grows_with_their_number(page: Page) -> None:
    assert await page.evaluate(KEYED, 40_000) < 1000
