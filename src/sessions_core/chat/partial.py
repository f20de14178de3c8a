"""Answers that are not whole: what readers have been shown so far, and how an answer goes on after its process died.

How this works
--------------
Readers put the chunks of a turn together into one message and cannot take any of them back. So when a turn is answered
again, the new attempt must go on with the message that they have. :class:`Replay` compares what the new attempt writes
with what its predecessors wrote: while it is the same, nothing is written; what goes further is written from there on.
If it differs, what is there cannot be used: its open parts are ended, a ``data-restart`` part says that the parts
before it are void, and the new answer follows whole.

Everything here is synchronous and knows no channel.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from sessions_core.domain.channel import encode_json
from sessions_core.domain.json_values import as_object

Chunk = Mapping[str, Any]

START: Final = "start"
START_STEP: Final = "start-step"
FINISH_STEP: Final = "finish-step"
FINISH: Final = "finish"
RESTART: Final = "data-restart"
_ENDS: Final = {"text": "text-end", "reasoning": "reasoning-end"}
_DELTAS: Final = {"text-delta": "delta", "reasoning-delta": "delta", "tool-input-delta": "inputTextDelta"}
"""Chunks that hold a piece of a longer text, and the member that has it."""


@attrs.frozen
class PartialAnswer:
    """What attempts before this one have written of the answer to the same input.

    Attributes:
        chunks: What counts of it, without the ``start``; empty if nothing was written.
    """

    chunks: tuple[Chunk, ...] = ()

    @property
    def text(self) -> str:
        """All text that was written."""
        return "".join(str(chunk.get("delta", "")) for chunk in self.chunks if chunk.get("type") == "text-delta")

    def __bool__(self) -> bool:
        return bool(self.chunks)


def find_partial(written: Iterable[Any], message_id: str, *, is_whole: bool) -> PartialAnswer:
    """Find what *written*, the data on ``out`` since the last turn-complete, has of the message *message_id*.

    Args:
        written: Oldest first. What is no chunk, and what belongs to other messages, does not count.
        message_id: The id in the ``start`` of every attempt's message.
        is_whole: False if older records were left out, among them perhaps the ``start``.
    """
    chunks: list[Chunk] = []
    is_ours = not is_whole
    for data in written:
        chunk = as_object(data)
        if chunk is None or not isinstance(chunk.get("type"), str):
            continue
        if chunk["type"] == START:
            is_ours = chunk.get("messageId") == message_id
            chunks.clear()
        elif is_ours and chunk["type"] == RESTART:
            chunks.clear()
        elif is_ours:
            chunks.append(chunk)
    return PartialAnswer(tuple(chunks))


@attrs.define
class Shown:
    """What readers have been shown of the answer: what is open must be ended.

    Attributes:
        is_begun: Whether the message has its ``start``.
    """

    is_begun: bool = False
    _in_step: bool = False
    _open: dict[tuple[str, str], None] = attrs.field(factory=dict)

    def note(self, chunks: Iterable[Chunk]) -> None:
        """Take in chunks that have been written."""
        for chunk in chunks:
            self.is_begun = True
            kind = chunk.get("type")
            if kind in (START_STEP, FINISH_STEP):
                self._in_step = kind == START_STEP
                self._open.clear()  # A step's end is also that of its parts, for those who read.
            part, _, event = str(kind).partition("-")
            if part in _ENDS:
                self._note_part(part, event, str(chunk.get("id")))

    def _note_part(self, part: str, event: str, part_id: str) -> None:
        if event == "end":
            self._open.pop((part, part_id), None)
        else:
            self._open[part, part_id] = None

    def end_parts(self) -> list[Chunk]:
        """Return the chunks that end the parts which are open."""
        return [{"type": _ENDS[part], "id": part_id} for part, part_id in self._open]

    def end_step(self) -> list[Chunk]:
        """Return the chunk that ends the step, if one is open."""
        return [{"type": FINISH_STEP}] if self._in_step else []


@attrs.define(eq=False)
class Replay:
    """Holds back what an earlier attempt has written already."""

    _expected: deque[Chunk]
    _before: Shown
    _said: list[Chunk] = attrs.field(init=False, factory=list)

    @classmethod
    def of(cls, partial: PartialAnswer) -> Replay:
        """Make the replay over *partial*; over an empty one it holds nothing back."""
        before = Shown()
        before.note(partial.chunks)
        return cls(deque(_joined(partial.chunks)), before)

    def admit(self, chunk: Chunk) -> list[Chunk]:
        """Return what has to be written for *chunk*, the next one of the new attempt."""
        if not self._expected:
            return [chunk]
        self._said.append(chunk)
        rest = self._match(json.loads(encode_json(chunk)))
        if rest is None:
            return self._restart()
        if not self._expected:
            self._said.clear()
        return rest

    def finish(self) -> list[Chunk]:
        """Return what has to be written because the new attempt is at its end: nothing, unless there was more before."""
        return self._restart() if self._expected else []

    def _match(self, chunk: Chunk) -> list[Chunk] | None:
        """Return what *chunk* has beyond what is expected; None if it differs."""
        expected, member = self._expected[0], _DELTAS.get(chunk["type"])
        if member is not None and chunk.get(member) == "":
            return []
        if chunk == expected:
            self._expected.popleft()
            return []
        if member is None or {**chunk, member: ""} != {**expected, member: ""}:
            return None
        return self._match_delta(chunk, member, chunk.get(member), expected.get(member))

    def _match_delta(self, chunk: Chunk, member: str, new: object, old: object) -> list[Chunk] | None:
        if not isinstance(new, str) or not isinstance(old, str):
            return None
        if old.startswith(new):
            self._expected[0] = {**chunk, member: old[len(new) :]}
            return []
        if not new.startswith(old) or len(self._expected) > 1:
            return None
        self._expected.clear()
        return [{**chunk, member: new[len(old) :]}]

    def _restart(self) -> list[Chunk]:
        self._expected.clear()
        said, self._said = self._said, []
        return [*self._before.end_parts(), *self._before.end_step(), {"type": RESTART, "data": {}}, *said]


def _joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Join deltas of one part that follow each other, and leave out empty ones: how a text was cut up does not matter."""
    joined: list[Chunk] = []
    for chunk in chunks:
        member = _DELTAS.get(chunk["type"])
        last = joined[-1] if joined else None
        if member is not None and chunk.get(member) == "":
            continue
        if member is None or last is None or {**last, member: ""} != {**chunk, member: ""}:
            joined.append(chunk)
        else:
            joined[-1] = {**chunk, member: str(last.get(member, "")) + str(chunk.get(member, ""))}
    return joined
