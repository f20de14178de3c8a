"""Records as text for people: what users and agents say as it is, everything else one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from sessions_core.chat import ACTION, MESSAGE, RESTART, STOP, SUBMIT, Input, text_of
from sessions_core.domain.channel import (
    CONTROL_HEADER,
    PUBLIC_ACCESS_TOKEN,
    SESSION_CLOSED_REASON,
    SESSION_IN_EVENT_ID,
    TURN_COMPLETE,
    UPGRADE_REQUIRED,
    Envelope,
    Io,
    Record,
    RecordKind,
)
from sessions_core.domain.json_values import as_object
from sessions_server.cli.text import Style, printable, to_json

DELTAS: Final = frozenset({"text-delta", "reasoning-delta"})
FRAMING: Final = frozenset(
    {"start", "start-step", "text-start", "reasoning-start", "text-end", "reasoning-end", "finish-step", "finish"}
)
"""Chunks that say where something begins and ends; the text says so itself."""


def chunk_of(record: Record) -> Mapping[str, Any]:
    """Return the UI-message chunk that a record of ``out`` holds; an empty one if it holds something else."""
    return as_object(record.data) or {} if record.kind is RecordKind.DATA else {}


def describe_record(record: Record) -> dict[str, Any]:
    """Return a record as ``--json`` prints it. ``timestamp`` is in Unix milliseconds."""
    is_data = record.kind is RecordKind.DATA
    envelope = Envelope.parse(record.body) if is_data else None
    return {
        "seq": record.seq,
        "timestamp": record.timestamp,
        "kind": record.kind.value,
        "control": record.control,
        "headers": [list(header) for header in record.headers],
        "id": None if envelope is None else envelope.id,
        "data": record.data if is_data else None,
    }


def raw_text(record: Record) -> str:
    """Return a data record's data as it is, as JSON if it is no text, and a newline; nothing for other kinds."""
    if record.kind is not RecordKind.DATA:
        return ""
    data = record.data
    return (data if isinstance(data, str) else to_json(data)) + "\n"


@attrs.define(eq=False)
class Transcript:
    """Turns the records of one channel, in their order, into text."""

    io: Io
    style: Style
    _is_open: bool = attrs.field(init=False, default=False)

    def add(self, record: Record) -> str:
        """Return what *record* adds to the text, which may be nothing."""
        match record.kind:
            case RecordKind.COMMAND:
                return ""
            case RecordKind.CONTROL:
                return self._line(_control(record), self.style.dim)
            case RecordKind.DATA:
                return self._input(record.data) if self.io is Io.IN else self._output(record.data)

    def _output(self, data: Any) -> str:
        chunk = as_object(data) or {}
        kind = str(chunk.get("type", ""))
        if kind in DELTAS and isinstance(delta := chunk.get("delta"), str):
            return self._inline(delta, self.style.dim if kind == "reasoning-delta" else str)
        if kind in FRAMING:
            return self._end_line()
        if kind == RESTART:
            return self._line("-- the answer begins anew", self.style.dim)
        if kind == "error":
            return self._line(f"error: {chunk.get('errorText')}", self.style.red)
        return self._line(data if isinstance(data, str) else to_json(data), self.style.dim if kind else str)

    def _input(self, data: Any) -> str:
        given = Input.parse(data)
        if given is not None and given.kind == STOP:
            return self._line("-- stop", self.style.dim)
        if given is None or given.kind != MESSAGE:
            return self._line(data if isinstance(data, str) else to_json(data))
        if given.trigger == ACTION:
            return self._line(f"-- action {to_json(given.payload.get('action'))}", self.style.dim)
        if given.trigger != SUBMIT:
            return self._line(f"-- {given.trigger}", self.style.dim)
        message = as_object(given.payload.get("message"))
        return self._line(f"> {text_of(message) or to_json(message)}", self.style.bold)

    def _inline(self, text: str, mark: Callable[[str], str]) -> str:
        if text:
            self._is_open = not text.endswith("\n")
        return mark(printable(text))

    def _line(self, text: str, mark: Callable[[str], str] = str) -> str:
        return self._end_line() + mark(printable(text)) + "\n"

    def _end_line(self) -> str:
        was_open, self._is_open = self._is_open, False
        return "\n" if was_open else ""


def _control(record: Record) -> str:
    more = [(name, value) for name, value in record.headers if name not in (CONTROL_HEADER, PUBLIC_ACCESS_TOKEN)]
    if record.closes_session:
        reason = record.header(SESSION_CLOSED_REASON)
        return f"-- session closed{f': {reason}' if reason else ''} (seq {record.seq})"
    if record.control == TURN_COMPLETE:
        return f"-- turn complete (seq {record.seq}, in up to {record.header(SESSION_IN_EVENT_ID) or 'an unknown seq'})"
    if record.control == UPGRADE_REQUIRED:
        return f"-- another run takes over (seq {record.seq})"
    return f"-- {record.control} (seq {record.seq}){''.join(f' {name}={value}' for name, value in more)}"
