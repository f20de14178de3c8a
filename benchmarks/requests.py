"""Requests as the bytes that go over the wire."""

from __future__ import annotations

from typing import Final

from benchmarks.caller import HOST

IN: Final = "in"
OUT: Final = "out"


def append(session: str, token: str, text: str, part_id: str, io: str = IN) -> bytes:
    """Append a text."""
    body = text.encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "X-Part-Id": part_id}
    return _request("POST", f"{_channel(session, io)}/append", token, fields) + body


def records(session: str, token: str, after: int) -> bytes:
    """Read what ``out`` holds after a seq."""
    return _request("GET", f"{_channel(session, OUT)}/records?afterEventId={after}", token, {})


def subscribe(session: str, token: str, after: int | None = None, *, peek_settled: bool = False) -> bytes:
    """Subscribe to ``out`` after a seq, or from the beginning."""
    fields = {"Accept": "text/event-stream", "Timeout-Seconds": "60"}
    if after is not None:
        fields["Last-Event-ID"] = str(after)
    if peek_settled:
        fields["X-Peek-Settled"] = "1"
    return _request("GET", _channel(session, OUT), token, fields)


def _channel(session: str, io: str) -> str:
    return f"/realtime/v1/sessions/{session}/{io}"


def _request(method: str, path: str, token: str, fields: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", f"Authorization: Bearer {token}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()
