"""UI-message chunks, and which of those that were written count.

Readers put the chunks of a turn together into one message and cannot take any of them back. So an attempt that cannot use
what its predecessors wrote says so: a ``data-restart``, or a ``start`` of its own, makes everything before it void. This
is the one place that knows; the page has it once more, in its own language.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from sessions_core.domain.json_values import as_object

Chunk = Mapping[str, Any]

START: Final = "start"
START_STEP: Final = "start-step"
FINISH_STEP: Final = "finish-step"
FINISH: Final = "finish"
METADATA: Final = "message-metadata"
RESTART: Final = "data-restart"
AGAIN: Final = "-again"
"""What the id of a data part gets if a void part has that id already."""

PartKey = tuple[str, str]
"""What a reader tells data parts of one message apart by: their type and id."""


def part_key(chunk: Chunk) -> PartKey | None:
    """Return what tells a data part from others; None for all other chunks."""
    kind, part_id = str(chunk.get("type")), chunk.get("id")
    return (kind, part_id) if kind.startswith("data-") and isinstance(part_id, str) else None


def part_keys(chunks: Iterable[Chunk]) -> frozenset[PartKey]:
    """Return the keys of all data parts among *chunks*."""
    return frozenset(key for chunk in chunks if (key := part_key(chunk)) is not None)


@attrs.define
class Collector:
    """Collects the chunks of one turn in the order of their writing, and drops what is void.

    Attributes:
        start: The message's ``start``; None if there was none.
        chunks: What counts of the rest, as it was written.
        taken: The data parts with an id that are void: a reader would put their successors in their void places.
    """

    start: Chunk | None = None
    chunks: list[Chunk] = attrs.field(factory=list)
    taken: set[PartKey] = attrs.field(factory=set)

    def add(self, data: Any) -> None:
        """Take in the data of a record; what is no chunk is passed over."""
        chunk = as_object(data)
        if chunk is None or not isinstance(kind := chunk.get("type"), str):
            return
        if kind not in (START, RESTART):
            self.chunks.append(chunk)
            return
        self.taken |= part_keys(self.chunks)
        self.chunks.clear()
        if kind == START:
            self.start = chunk

    def original(self, chunk: Chunk) -> Chunk:
        """Give a data part the id back under which the agent wrote it."""
        if (key := part_key(chunk)) is None:
            return chunk
        kind, part_id = key
        while part_id.endswith(AGAIN) and (kind, part_id.removesuffix(AGAIN)) in self.taken:
            part_id = part_id.removesuffix(AGAIN)
        return {**chunk, "id": part_id}


def shown_chunks(written: Iterable[Any]) -> tuple[Chunk, ...]:
    """Return what counts of *written*, the data of a turn's records in their order, as its last attempt wrote it."""
    collector = Collector()
    for data in written:
        collector.add(data)
    start = () if collector.start is None else (collector.start,)
    return (*start, *map(collector.original, collector.chunks))
