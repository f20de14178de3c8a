"""Server-sent events as they come over a connection, and the records in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import attrs

from sessions_core.domain.channel import Batch, Record

DONE: Final = "[DONE]"


@attrs.frozen
class Frame:
    """One event of a stream."""

    event: str
    data: str


@attrs.define(eq=False)
class FrameReader:
    """Cuts a stream of bytes into frames, wherever the pieces begin and end."""

    _rest: bytes = attrs.field(init=False, default=b"")
    _event: str = attrs.field(init=False, default="message")
    _data: list[str] = attrs.field(init=False, factory=list)

    def feed(self, piece: bytes) -> Iterator[Frame]:
        """Yield the frames that *piece* completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            frame = self._take(line.removesuffix(b"\r").decode(errors="replace"))
            if frame is not None:
                yield frame

    def _take(self, line: str) -> Frame | None:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._event = value
            elif name == "data":
                self._data.append(value)
            return None
        frame = Frame(self._event, "\n".join(self._data)) if self._data else None
        self._event, self._data = "message", []
        return frame


def read_batch(frame: Frame) -> Batch:
    """Read the records of a batch; a ping has none, only the tail.

    Raises:
        ValueError: It is neither.
    """
    try:
        content = json.loads(frame.data)
        tail = content["tail"]
        records = tuple(_record(item) for item in content.get("records", ()))
        return Batch(records, int(tail["seq_num"]), int(tail["timestamp"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        message = "it sent something else than records"
        raise ValueError(message) from None


def _record(item: dict[str, Any]) -> Record:
    headers = tuple((str(name), str(value)) for name, value in item.get("headers", ()))
    body = item.get("body", "").encode(errors="surrogatepass")
    return Record(int(item["seq_num"]), int(item["timestamp"]), body, headers)
