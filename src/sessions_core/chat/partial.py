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
from collections.abc import Iterable
from typing import Any, Final

import attrs

from sessions_core.chat.chunks import (
    AGAIN,
    FINISH,
    FINISH_STEP,
    RESTART,
    START,
    START_STEP,
    Chunk,
    Collector,
    PartKey,
    part_key,
    part_keys,
)
from sessions_core.domain.channel import encode_json
from sessions_core.domain.json_values import as_list, as_object

_ENDS: Final = {"text": "text-end", "reasoning": "reasoning-end"}
_DELTAS: Final = {"text-delta": "delta", "reasoning-delta": "delta", "tool-input-delta": "inputTextDelta"}
"""Chunks that hold a piece of a longer text, and the member that has it."""


@attrs.frozen
class PartialAnswer:
    """What attempts before this one have written of the answer to the same input.

    Attributes:
        chunks: What counts of it, without the ``start``; empty if nothing was written.
        taken: The data parts with an id that are void already: a reader would put their successors in their void places.
        is_begun: Whether the message has its ``start``, so that it needs no other one.
    """

    chunks: tuple[Chunk, ...] = ()
    taken: frozenset[PartKey] = frozenset()
    is_begun: bool = attrs.field(default=False, kw_only=True)

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
    collected = Collector()
    for data in written:
        collected.add(data)
    start, taken = collected.start, frozenset(collected.taken)
    if start is None:
        return PartialAnswer(() if is_whole else tuple(collected.chunks), taken)
    is_ours = start.get("messageId") == message_id
    return PartialAnswer(tuple(collected.chunks) if is_ours else (), taken, is_begun=is_ours)


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
            if kind == FINISH_STEP:
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


def given_up(written: Iterable[Any], error_text: str, *, is_whole: bool) -> list[Chunk]:
    """Return the chunks that end the message in *written* with an error; the error alone if no message was begun."""
    chunks = [chunk for data in written if (chunk := as_object(data)) is not None]
    error = {"type": "error", "errorText": error_text}
    if is_whole and not any(chunk.get("type") == START for chunk in chunks):
        return [error]
    shown = Shown()
    shown.note(chunks)
    return [*shown.end_parts(), error, *shown.end_step(), {"type": FINISH}]


@attrs.define(eq=False)
class Replay:
    """Holds back what an earlier attempt has written already; nothing, if that is empty."""

    _partial: PartialAnswer
    _expected: deque[Chunk] = attrs.field(init=False)
    _matched: int = attrs.field(init=False, default=0)
    _said: list[Chunk] = attrs.field(init=False, factory=list)
    _taken: frozenset[PartKey] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._expected = deque(_joined(self._partial.chunks))
        self._taken = self._partial.taken

    def admit(self, chunk: Chunk) -> list[Chunk]:
        """Return what has to be written for *chunk*, the next one of the new attempt."""
        if not self._expected:
            return [self._renamed(chunk)]
        self._said.append(chunk)
        rest = self._match(json.loads(encode_json(self._renamed(chunk))))
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
        if not self._matched and _is_same(chunk, expected):
            self._expected.popleft()
            return []
        if member is None or not _is_same({**chunk, member: ""}, {**expected, member: ""}):
            return None
        return self._match_delta(chunk, member, chunk.get(member), expected.get(member))

    def _match_delta(self, chunk: Chunk, member: str, new: object, old: object) -> list[Chunk] | None:
        if not isinstance(new, str) or not isinstance(old, str):
            return None
        if old.startswith(new, self._matched):
            self._matched += len(new)
            if self._matched == len(old):
                self._expected.popleft()
                self._matched = 0
            return []
        rest = old[self._matched :]
        if not new.startswith(rest) or len(self._expected) > 1:
            return None
        self._expected.clear()
        return [{**chunk, member: new[len(rest) :]}]

    def _restart(self) -> list[Chunk]:
        self._expected.clear()
        self._taken |= part_keys(self._partial.chunks)
        before = Shown()
        before.note(self._partial.chunks)
        said, self._said = [self._renamed(chunk) for chunk in self._said], []
        return [*before.end_parts(), *before.end_step(), {"type": RESTART, "data": {}}, *said]

    def _renamed(self, chunk: Chunk) -> Chunk:
        """Give a data part another id if a void part has its own: readers would put it in that part's place."""
        key = part_key(chunk)
        if key is None or key not in self._taken:
            return chunk
        kind, part_id = key
        while (kind, part_id) in self._taken:
            part_id += AGAIN
        return {**chunk, "id": part_id}


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same; unlike ``==``, true is not 1."""
    if type(one) is not type(other):
        return False
    if (members := as_object(one)) is not None:
        return members.keys() == other.keys() and all(_is_same(value, other[name]) for name, value in members.items())
    if (items := as_list(one)) is not None:
        return len(items) == len(other) and all(map(_is_same, items, other))
    return bool(one == other)


def _joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Join deltas of one part that follow each other, and leave out empty ones: how a text was cut up does not matter."""
    joined: list[tuple[Chunk, list[str]]] = []
    for chunk in chunks:
        delta = chunk.get(_DELTAS.get(chunk["type"], ""))
        if not isinstance(delta, str):
            joined.append((chunk, []))
        elif delta:
            frame = {**chunk, _DELTAS[chunk["type"]]: ""}
            if not joined or not _is_same(joined[-1][0], frame):
                joined.append((frame, []))
            joined[-1][1].append(delta)
    return [{**chunk, _DELTAS[chunk["type"]]: "".join(deltas)} if deltas else chunk for chunk, deltas in joined]
