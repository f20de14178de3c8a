"""Server-sent events: their encoding, what clients say in headers, and the rhythm of a stream."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.channel import Batch, Record, RecordKind
from sessions_core.errors import ChannelUnavailableError, InvalidError
from sessions_core.services.hub import Push
from sessions_server import sse
from sessions_server.cli.events import FrameReader, read_batch
from sessions_server.sse import (
    DONE,
    FRAME_BYTES,
    FRAME_RECORDS,
    Pace,
    encode_error,
    encode_frames,
    encode_frames_without_tokens,
    encode_ping,
    parse_last_event_id,
    parse_window,
    pump_or_explain,
)
from sessions_server.wire.responses import record_list
from sessions_server.wire.values import legible

any_text = st.text(st.characters(exclude_categories=()))
headers = st.lists(st.tuples(any_text, any_text), max_size=3).map(tuple)
records = st.builds(
    Record, seq=st.just(0), timestamp=st.integers(0, 2**50), body=st.binary(max_size=80), headers=headers
)


def parse(frame: bytes) -> dict[str, Any]:
    """Read one frame as an EventSource does."""
    text = frame.decode()
    assert text.endswith("\n\n")
    assert "\n\n" not in text[:-2]
    assert "\r" not in text
    fields = dict(line.split(": ", 1) for line in text[:-2].split("\n"))
    return {**fields, "data": json.loads(fields["data"])}


@given(st.lists(records, min_size=1, max_size=20), st.integers(0, 2**50))
def test_a_batch_is_one_frame_from_which_every_record_can_be_read(found: list[Record], tail: int) -> None:
    numbered = tuple(attrs.evolve(record, seq=seq) for seq, record in enumerate(found, 5))
    [frame] = encode_frames(Batch(numbered, tail, 7))
    event = parse(frame)
    assert (event["event"], event["id"]) == ("batch", str(numbered[-1].seq))
    assert event["data"]["tail"] == {"seq_num": tail, "timestamp": 7}
    for record, shown in zip(numbered, event["data"]["records"], strict=True):
        assert (shown["seq_num"], shown["timestamp"]) == (record.seq, record.timestamp)
        assert shown.get("body", "") == record.body.decode(errors="replace")
        assert shown.get("headers", []) == [[legible(name), legible(value)] for name, value in record.headers]


@given(st.lists(records, min_size=1, max_size=5), st.lists(st.integers(0, 5000), max_size=8))
def test_clients_read_back_what_was_written_wherever_the_network_cuts_it(found: list[Record], cuts: list[int]) -> None:
    numbered = tuple(attrs.evolve(record, seq=seq) for seq, record in enumerate(found, 5))
    stream = encode_ping(3, 2, 1) + b"".join(encode_frames(Batch(numbered, 99, 7))) + DONE
    bounds = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    reader = FrameReader()
    read = [frame for start, end in pairwise(bounds) for frame in reader.feed(stream[start:end])]
    assert [frame.event for frame in read] == ["ping", "batch", "message"]
    batch = read_batch(read[1])
    assert [(record.seq, record.timestamp) for record in batch.records] == [(r.seq, r.timestamp) for r in numbered]
    assert [record.body for record in batch.records] == [r.body.decode(errors="replace").encode() for r in numbered]


@given(st.lists(records, min_size=1, max_size=5))
def test_whatever_a_stranger_has_stored_can_be_drained(found: list[Record]) -> None:
    shown = json.loads(msgspec.json.encode(record_list(Batch(tuple(found), 99, 7))))
    kept = [record for record in found if record.kind is not RecordKind.COMMAND]
    assert [len(record.get("headers", [])) for record in shown["records"]] == [len(record.headers) for record in kept]


def test_an_empty_body_and_empty_headers_are_left_out() -> None:
    [frame] = encode_frames(Batch((Record(0, 1, b""),), 1, 1))
    assert parse(frame)["data"]["records"] == [{"seq_num": 0, "timestamp": 1}]


def test_a_command_keeps_its_empty_header_name() -> None:
    [frame] = encode_frames(Batch((Record(0, 1, (3).to_bytes(8, "big"), (("", "trim"),)),), 1, 1))
    assert parse(frame)["data"]["records"][0]["headers"] == [["", "trim"]]


@pytest.mark.parametrize(("size", "count"), [(10, 2 * FRAME_RECORDS + 1), (FRAME_BYTES // 3, 7), (FRAME_BYTES, 3)])
def test_a_large_batch_is_several_frames_each_with_its_own_last_seq(size: int, count: int) -> None:
    batch = Batch(tuple(Record(seq, 1, b"x" * size) for seq in range(count)), count, 1)
    events = [parse(frame) for frame in encode_frames(batch)]
    shown = [[record["seq_num"] for record in event["data"]["records"]] for event in events]
    assert [seq for group in shown for seq in group] == list(range(count))
    assert [event["id"] for event in events] == [str(group[-1]) for group in shown]
    assert all(len(group) <= FRAME_RECORDS and (len(group) == 1 or len(group) * size <= FRAME_BYTES) for group in shown)


def test_an_empty_batch_is_no_frame() -> None:
    assert encode_frames(Batch((), 3, 1)) == ()


def test_a_batch_is_encoded_once_for_all() -> None:
    batch = Batch((Record(0, 1, b"x"),), 1, 1)
    assert batch.encoded(encode_frames) is batch.encoded(encode_frames)


def test_session_tokens_are_left_out_for_those_who_must_not_see_them() -> None:
    headers = (("trigger-control", "turn-complete"), ("session-in-event-id", "0"))
    with_token = Batch((Record(0, 1, b"x"), Record(1, 1, b"", (*headers, ("public-access-token", "t")))), 2, 1)
    [frame] = with_token.encoded(encode_frames_without_tokens)
    assert parse(frame)["data"]["records"][1]["headers"] == [list(header) for header in headers]
    assert b"public-access-token" in with_token.encoded(encode_frames)[0]
    assert with_token.encoded(encode_frames_without_tokens)[0] is frame, "encoded once for all of them"
    without = Batch((Record(0, 1, b"x"), Record(1, 1, b"", headers)), 2, 1)
    assert without.encoded(encode_frames_without_tokens) is without.encoded(encode_frames), "nothing to leave out"


def test_a_ping_tells_the_tail() -> None:
    assert parse(encode_ping(4, 9, 12)) == {
        "event": "ping",
        "data": {"timestamp": 12, "tail": {"seq_num": 4, "timestamp": 9}},
    }


def test_an_error_tells_its_code() -> None:
    event = parse(encode_error(ChannelUnavailableError()))
    assert event["event"] == "error"
    assert event["data"]["code"] == "channel_unavailable"


@given(st.integers(0, 2**53 - 1))
def test_the_last_event_id_is_a_seq(seq: int) -> None:
    for text in (str(seq), f"{seq}-0", f"{seq},1,2", f" {seq} ", f"00{seq}"):
        assert parse_last_event_id(text) == seq


@given(st.text(max_size=60))
def test_any_other_text_is_the_beginning(text: str) -> None:
    seq = parse_last_event_id(text)
    assert seq is None or 0 <= seq < 2**53


@pytest.mark.parametrize("text", [None, "", "-1", "-", ",1", "x", "1.5", "+1", "1e3", "0x1", "٣", "²", "1 2", "null"])
def test_a_broken_one_is_the_beginning(text: str | None) -> None:
    assert parse_last_event_id(text) is None


@pytest.mark.parametrize("text", ["9" * 17, "9" * 5000, str(2**53)])
def test_a_huge_one_is_past_every_tail(text: str) -> None:
    assert parse_last_event_id(text) == 2**53 - 1


@pytest.mark.parametrize(("text", "seconds"), [(None, 60.0), ("1", 1), ("600", 600), (" 5 ", 5)])
def test_a_window_is_1_to_600_seconds(text: str | None, seconds: float) -> None:
    assert parse_window(text, 60.0) == seconds


@pytest.mark.parametrize("text", ["0", "601", "-1", "1.5", "", "x", "1" * 400])
def test_any_other_window_is_refused(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_window(text, 60.0)
    assert caught.value.field == "Timeout-Seconds"


@attrs.define
class Clock:
    """Stands still unless somebody waits."""

    now: float = 1000.0


@attrs.frozen
class Pushed:
    """A batch that comes during a wait, after so long."""

    batch: Batch
    after: float = 0.0


@attrs.define
class Lines:
    """An outlet that keeps the first line of every frame."""

    is_ready: bool = True
    lines: list[str] = attrs.field(factory=list)

    async def write(self, frame: bytes) -> None:
        self.lines.append(frame.decode().split("\n")[0])

    def write_at_once(self, frame: bytes) -> bool:
        if self.is_ready:
            self.lines.append("at once: " + frame.decode().split("\n")[0])
        return self.is_ready


@attrs.define
class Script:
    """A reading that gives what it was told: batches, silences (None), errors, and batches that are pushed."""

    steps: list[Any]
    clock: Clock = attrs.field(factory=Clock)
    waits: list[float | None] = attrs.field(factory=list)
    next_seq: int = 0
    timestamp: int = 0
    ends: bool = False

    @property
    def is_caught_up(self) -> bool:
        return not any(isinstance(step, Batch) for step in self.steps)

    @property
    def finished(self) -> bool:
        return self.ends and not self.steps

    async def next(self, timeout: float | None = None, push: Push | None = None) -> Batch | None:
        self.waits.append(timeout)
        step = self.steps.pop(0) if self.steps else None
        while isinstance(step, Pushed):
            assert push is not None
            self.clock.now += step.after
            if not push(step.batch):
                return step.batch
            step = self.steps.pop(0) if self.steps else None
        if isinstance(step, Exception):
            raise step
        return step


AT_ONCE = Pace(window=0.0, ping=60.0, slow_write=1.0)


async def run(script: Script, pace: Pace = AT_ONCE, outlet: Lines | None = None) -> list[str]:
    outlet = outlet or Lines()
    await outlet.write(await pump_or_explain(script, outlet, pace))
    return outlet.lines


def batch(seq: int) -> Batch:
    return Batch((Record(seq, 1, b"x"),), seq + 1, 1)


async def test_a_stream_gives_what_is_there_then_one_ping_then_done() -> None:
    assert await run(Script([batch(0), batch(1)])) == ["event: batch", "event: batch", "event: ping", "data: [DONE]"]


async def test_an_empty_channel_begins_with_a_ping() -> None:
    assert await run(Script([])) == ["event: ping", "data: [DONE]"]


async def test_live_batches_follow_without_a_ping_each() -> None:
    lines = await run(Script([batch(0), None, batch(1)], ends=True), Pace(window=9.0, ping=60.0, slow_write=1.0))
    assert lines == ["event: batch", "event: batch", "event: ping", "data: [DONE]"]


async def test_a_silent_stream_is_pinged_again_and_again() -> None:
    lines = await run(Script([None] * 3, ends=True), Pace(window=9.0, ping=0.0, slow_write=1.0))
    assert lines == ["event: ping"] * 3 + ["data: [DONE]"]


async def test_a_finished_reading_ends_the_stream_before_its_window() -> None:
    lines = await run(Script([batch(0)], ends=True), Pace(window=600.0, ping=60.0, slow_write=1.0))
    assert lines[-1] == "data: [DONE]"


async def test_a_lost_log_ends_the_stream_with_an_error_and_without_done() -> None:
    lines = await run(Script([batch(0), ChannelUnavailableError()]))
    assert lines[-1] == "event: error"
    assert DONE.decode() not in lines


async def test_a_surprise_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    assert (await run(Script([RuntimeError("secret")])))[-1] == "event: error"
    assert "subscription failed" in caplog.text


async def test_a_reader_that_left_is_nobody_to_explain_to() -> None:
    with pytest.raises(ConnectionResetError):
        await run(Script([ConnectionResetError()]))


async def test_what_comes_during_a_wait_is_written_on_the_spot() -> None:
    script = Script([Pushed(batch(0)), Pushed(batch(1)), None], ends=True)
    lines = await run(script, Pace(window=9.0, ping=60.0, slow_write=1.0))
    assert lines == ["event: ping", "at once: event: batch", "at once: event: batch", "data: [DONE]"]


async def test_a_reader_that_is_not_ready_is_waited_for() -> None:
    script = Script([Pushed(batch(0)), None], ends=True)
    lines = await run(script, Pace(window=9.0, ping=60.0, slow_write=1.0), Lines(is_ready=False))
    assert lines == ["event: ping", "event: batch", "data: [DONE]"]


async def test_a_batch_of_several_frames_is_never_written_on_the_spot() -> None:
    large = Batch(tuple(Record(seq, 1, b"x") for seq in range(FRAME_RECORDS + 1)), FRAME_RECORDS + 1, 1)
    lines = await run(Script([Pushed(large), None], ends=True), Pace(window=9.0, ping=60.0, slow_write=1.0))
    assert lines == ["event: ping", "event: batch", "event: batch", "data: [DONE]"]


async def test_a_record_written_on_the_spot_starts_the_silence_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(sse, "monotonic", lambda: clock.now)
    script = Script([Pushed(batch(0), after=3.0), None, Pushed(batch(1), after=1.5), None], clock=clock, ends=True)
    lines = await run(script, Pace(window=10.0, ping=4.0, slow_write=1.0))
    assert script.waits == [4.0, 4.0], "the ping waits for four seconds of silence, and does not come at once"
    assert lines.count("event: ping") == 1


async def test_a_batch_that_cannot_be_encoded_breaks_its_own_stream_and_not_the_one_who_pushes_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def encode(_: Batch) -> tuple[bytes, ...]:
        raise UnicodeError

    outlet = Lines()
    script = Script([Pushed(batch(0)), None])
    last = await pump_or_explain(script, outlet, Pace(window=9.0, ping=60.0, slow_write=1.0), encode)
    assert last.startswith(b"event: error")
    assert outlet.lines == ["event: ping"]


@attrs.define
class Whole:
    """An outlet that keeps whole frames."""

    frames: list[bytes] = attrs.field(factory=list)

    async def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    def write_at_once(self, frame: bytes) -> bool:
        self.frames.append(b"at once: " + frame)
        return True


@pytest.mark.parametrize("may", [True, False])
async def test_who_may_see_session_tokens_is_asked_before_each_batch_that_has_some(may: bool) -> None:
    def with_token(seq: int) -> Batch:
        return Batch((Record(seq, 1, b"", (("public-access-token", f"token-{seq}"),)),), seq + 1, 1)

    asked = 0

    async def ask() -> bool:
        nonlocal asked
        asked += 1
        return may

    outlet = Whole()
    script = Script([with_token(0), Pushed(batch(1)), Pushed(with_token(2)), None], ends=True)
    await pump_or_explain(script, outlet, Pace(window=9.0, ping=60.0, slow_write=1.0), encode_frames, ask)
    written = [frame for frame in outlet.frames if b"event: batch" in frame]
    assert asked == 2
    assert [b"at once" in frame for frame in written] == [False, True, False], "nobody is asked on the spot"
    assert [b"token-" in frame for frame in written] == [may, False, may]
