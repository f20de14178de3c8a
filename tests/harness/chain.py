"""Hash chains: each record carries the hash of the one before, so that loss, doubling and reordering show."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator

import attrs


@attrs.define
class Chain:
    """Writes the links of one writer."""

    writer: str
    _number: int = attrs.field(init=False, default=0)
    _last: str = attrs.field(init=False, default="")

    def link(self, payload: str = "") -> str:
        """Return the next record's text."""
        text = json.dumps({"writer": self.writer, "number": self._number, "before": self._last, "payload": payload})
        self._number, self._last = self._number + 1, _hash(text)
        return text


def broken_links(texts: Iterable[str]) -> Iterator[str]:
    """Say what is wrong with the chains in *texts*, which are in the order in which they were stored."""
    expected: dict[str, tuple[int, str]] = {}
    for text in texts:
        link = json.loads(text)
        number, before = expected.get(link["writer"], (0, ""))
        if (link["number"], link["before"]) != (number, before):
            yield f"{link['writer']}: expected number {number}, found {link['number']}"
        expected[link["writer"]] = (link["number"] + 1, _hash(text))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
