"""Answers that processes died in, read as the AI SDK reads them: whatever was cut where, the last attempt is what is shown.

Each example is a story told to the end: a session, attempts whose processes die after some of their writes, and a last
one that comes to its end, fails, or is stopped.
"""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any, Literal

import anyio
import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_core import chat
from sessions_core.domain.channel import TURN_COMPLETE, RecordKind
from sessions_core.testing import run_agents

Chunks = list[dict[str, Any]]
End = Literal["completes", "fails", "is stopped"]


# --- A reader ---------------------------------------------------------------------------------------


@attrs.define
class Reader:
    """Puts chunks together as the AI SDK's ``processUIMessageStream`` does, and refuses what it refuses."""

    message_id: str | None = None
    parts: Chunks = attrs.field(factory=list)
    metadata: dict[str, Any] = attrs.field(factory=dict)
    is_finished: bool = False
    in_step: bool = False
    open: dict[tuple[str, str], dict[str, Any]] = attrs.field(factory=dict)
    tool_inputs: dict[str, str] = attrs.field(factory=dict)

    def take(self, chunk: dict[str, Any]) -> None:
        assert not self.is_finished, f"after the end: {chunk}"
        kind = chunk["type"]
        part, _, event = kind.partition("-")
        if kind == "start":
            assert self.message_id in (None, chunk["messageId"]), "another message"
            self.message_id = chunk["messageId"]
        elif kind == "finish":
            assert not self.in_step
            self.is_finished = True
        elif kind == "message-metadata":
            self.metadata |= chunk["messageMetadata"]
        elif kind == "start-step":
            self.in_step = True
            self.parts.append({"type": "step-start"})
        elif kind == "finish-step":
            assert self.in_step, "a step was ended twice"
            self.in_step = False
            self.open.clear()
        elif part in ("text", "reasoning"):
            self._text(part, event, chunk)
        elif part == "tool":
            self._tool(event, chunk)
        elif part == "data" and not chunk.get("transient"):
            self._data(chunk)

    def _text(self, part: str, event: str, chunk: dict[str, Any]) -> None:
        key = (part, chunk["id"])
        if event == "start":
            self.open[key] = {"type": part, "text": "", "state": "streaming"}
            self.parts.append(self.open[key])
        elif event == "delta":
            self.open[key]["text"] += chunk["delta"]
        else:
            self.open.pop(key)["state"] = "done"

    def _tool(self, event: str, chunk: dict[str, Any]) -> None:
        call = chunk["toolCallId"]
        step = max((index for index, part in enumerate(self.parts) if part["type"] == "step-start"), default=0)
        known = next((part for part in self.parts[step:] if part.get("toolCallId") == call), None)
        if known is None:
            assert event.startswith("input"), f"{chunk} of a call that is not there"
            known = {"type": "tool", "toolCallId": call}
            self.parts.append(known)
        if event == "input-start":
            self.tool_inputs[call] = ""
        elif event == "input-delta":
            self.tool_inputs[call] += chunk["inputTextDelta"]
            known["input"] = self.tool_inputs[call]
        else:
            known |= {name: value for name, value in chunk.items() if name in ("input", "output")}

    def _data(self, chunk: dict[str, Any]) -> None:
        part_id = chunk.get("id")
        known = next((p for p in self.parts if part_id and (p["type"], p.get("id")) == (chunk["type"], part_id)), None)
        if known is None:
            self.parts.append(copy.deepcopy(chunk))
        else:
            known["data"] = chunk["data"]

    @property
    def shown(self) -> Chunks:
        """What the documents tell pages to show, ids of data parts aside."""
        restarts = [index for index, part in enumerate(self.parts) if part["type"] == "data-restart"]
        counts = self.parts[restarts[-1] + 1 if restarts else 0 :]
        return [{name: value for name, value in part.items() if name != "id"} for part in counts]


def read(chunks: Chunks) -> Reader:
    reader = Reader()
    for chunk in chunks:
        reader.take(chunk)
    return reader


# --- Answers ----------------------------------------------------------------------------------------

TEXTS = st.text("ab😀é\n", max_size=4)


@st.composite
def texts(draw: st.DrawFn, number: int) -> Chunks:
    part, part_id = draw(st.sampled_from(["text", "reasoning"])), draw(st.sampled_from(["t", f"t{number}"]))
    deltas = draw(st.lists(TEXTS, max_size=4))
    pieces: Chunks = [{"type": f"{part}-delta", "id": part_id, "delta": delta} for delta in deltas]
    return [{"type": f"{part}-start", "id": part_id}, *pieces, {"type": f"{part}-end", "id": part_id}]


@st.composite
def parallel(draw: st.DrawFn) -> Chunks:
    """Two texts that are written at the same time."""
    begun: Chunks = [{"type": "text-start", "id": "left"}, {"type": "reasoning-start", "id": "right"}]
    sides = draw(st.lists(st.tuples(st.sampled_from([("text", "left"), ("reasoning", "right")]), TEXTS), max_size=5))
    pieces: Chunks = [{"type": f"{part}-delta", "id": part_id, "delta": delta} for (part, part_id), delta in sides]
    return [*begun, *pieces, {"type": "reasoning-end", "id": "right"}, {"type": "text-end", "id": "left"}]


@st.composite
def tools(draw: st.DrawFn, number: int) -> Chunks:
    call = draw(st.sampled_from(["c", f"c{number}"]))
    named = {"toolCallId": call, "toolName": "look"}
    deltas = draw(st.lists(st.sampled_from(["", "[", "1", "]"]), max_size=3))
    streamed: Chunks = [{"type": "tool-input-delta", "toolCallId": call, "inputTextDelta": delta} for delta in deltas]
    done: Chunks = [{"type": "tool-output-available", "toolCallId": call, "output": draw(st.integers(0, 1))}]
    return [
        {"type": "tool-input-start", **named},
        *streamed,
        {"type": "tool-input-available", **named, "input": "".join(deltas)},
        *(done if draw(st.booleans()) else []),
    ]


@st.composite
def data(draw: st.DrawFn) -> Chunks:
    chunk = {"type": f"data-{draw(st.sampled_from('xy'))}", "data": draw(st.sampled_from([0, False, 1, True, 1.0, {}]))}
    choices: list[dict[str, Any]] = [{}, {"id": "a"}, {"id": "b"}, {"transient": True}]
    members = draw(st.sampled_from(choices))
    return [{**chunk, **members}]


@st.composite
def answers(draw: st.DrawFn) -> Chunks:
    """Whole answers: parts of all kinds, cut up anyhow, with or without steps of their own."""
    chunks: Chunks = []
    for number in range(draw(st.integers(0, 4))):
        kinds = st.one_of(texts(number), texts(number), data(), data(), tools(number), parallel())
        part = draw(kinds)
        if draw(st.integers(0, 5)) == 0:
            part = [{"type": "start-step"}, *part, {"type": "finish-step"}] if not chunks else part
        chunks += part
    if draw(st.integers(0, 5)) == 0:
        chunks.insert(0, {"type": "message-metadata", "messageMetadata": {"model": draw(st.sampled_from("mn"))}})
    return chunks


@attrs.frozen
class Attempt:
    """Writes, each of some chunks; the process dies after them, unless this is the last attempt."""

    writes: list[Chunks]

    @property
    def chunks(self) -> Chunks:
        return [chunk for write in self.writes for chunk in write]


@st.composite
def attempts(draw: st.DrawFn) -> list[Attempt]:
    """Attempts that begin alike or not at all."""
    first, made = draw(answers()), list[Attempt]()
    for number in range(last := draw(st.integers(1, 3)), -1, -1):
        said = draw(st.sampled_from(["same", "same", "part", "other"]))
        whole = first if said == "same" else draw(answers())
        kept = whole if number == 0 else whole[: draw(st.integers(0, len(whole)))]
        size = 1 if number == last else draw(st.integers(1, 4))
        made.append(Attempt([kept[at : at + size] for at in range(0, len(kept), size)]))
    return made


# --- Stories ----------------------------------------------------------------------------------------


def tell(told: list[Attempt], end: End) -> Chunks:
    """Let every attempt but the last die; return all chunks of the one turn."""
    agents, left = chat.Agents(), list(told)

    @agents.task("writer")
    async def writer(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                attempt = left.pop(0)
                for write in attempt.writes:
                    await turn.write(*write)
                if left:
                    await anyio.sleep_forever()
                if end == "fails":
                    raise LookupError
                if end == "is stopped":
                    await anyio.sleep_forever()

    with run_agents(agents) as kit:
        session = kit.start("writer", maxAttempts=10)
        session.send("go")
        for _ in told[:-1]:
            kit.advance(timedelta(seconds=90))
            kit.kill()
        kit.advance(timedelta(seconds=90))
        if end == "is stopped":
            session.stop()
        records = session.records()
        assert [record.control for record in records if record.kind is RecordKind.CONTROL] == [TURN_COMPLETE]
        return [record.data for record in records if record.kind is RecordKind.DATA]


def whole_text(chunks: Chunks) -> str:
    """Return the chunks that count, as they were given, but for how texts were cut, and for what frames them."""
    whole: Chunks = []
    for chunk in chat.shown_chunks(chunks):
        deltas = [name for name in ("delta", "inputTextDelta") if name in chunk]
        is_frame = chunk["type"] in ("start", "start-step", "finish-step", "finish")
        if not is_frame and not any(chunk[name] == "" for name in deltas):
            whole += [{**chunk, name: letter} for name in deltas for letter in chunk[name]] or [dict(chunk)]
    return json.dumps(whole)


def is_settled(part: dict[str, Any]) -> bool:
    return part.get("state") != "streaming"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(attempts())
def test_a_reader_is_shown_the_last_attempt_and_nothing_else(told: list[Attempt]) -> None:
    chunks, chunks_alone = tell(told, "completes"), tell(told[-1:], "completes")
    reader, alone = read(chunks), read(chunks_alone)
    assert json.dumps(reader.shown) == json.dumps(alone.shown), "which tells true from 1"
    assert whole_text(chunks) == whole_text(chunks_alone)
    assert reader.metadata | alone.metadata == reader.metadata
    assert reader.is_finished or not reader.parts
    assert all(map(is_settled, reader.parts))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(attempts(), st.sampled_from(["fails", "is stopped"]))
def test_whatever_ends_the_last_attempt_leaves_nothing_open(told: list[Attempt], end: End) -> None:
    reader = read(tell(told, end))
    assert reader.is_finished or not reader.parts
    assert all(map(is_settled, reader.parts))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(attempts())
def test_an_attempt_that_says_the_same_again_repeats_nothing(told: list[Attempt]) -> None:
    whole = told[-1]
    cut = Attempt(whole.writes[: len(whole.writes) // 2])
    chunks = tell([cut, whole, whole], "completes")
    assert "data-restart" not in {chunk["type"] for chunk in chunks}
    assert read(chunks) == read(tell([whole], "completes"))


def test_an_answer_that_is_given_up_is_a_whole_message_with_an_error() -> None:
    agents = chat.Agents()

    @agents.task("deadly")
    async def deadly(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.write({"type": "text-start", "id": "t"}, {"type": "text-delta", "id": "t", "delta": "half"})
                await anyio.sleep_forever()

    with run_agents(agents) as kit:
        session = kit.start("deadly", maxAttempts=3)
        session.send("go")
        for _ in range(3):
            kit.advance(timedelta(seconds=90))
            kit.kill()
        turn = session.expect_turn(may_fail=True)
        reader = read([record.data for record in session.records() if record.kind is RecordKind.DATA])
    assert turn.error is not None
    assert turn.text == "half"
    assert reader.is_finished
    assert all(map(is_settled, reader.parts))
    kinds = [chunk["type"] for chunk in turn.chunks]
    assert kinds == [
        *("start", "start-step", "text-start", "text-delta"),
        *("text-end", "error", "finish-step", "finish"),
    ]


def test_an_answer_that_was_never_begun_is_given_up_with_the_error_alone() -> None:
    agents = chat.Agents()

    @agents.task("silent")
    async def silent(run: chat.Run) -> None:
        raise LookupError

    with run_agents(agents) as kit:
        session = kit.start("silent", maxAttempts=1)
        session.send("go")
        turn = session.expect_turn(may_fail=True)
    assert [chunk["type"] for chunk in turn.chunks] == ["error"]
