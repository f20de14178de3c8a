"""Requests that a server ought to refuse without much work, as the bytes that go over the wire."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from typing import Final

from benchmarks.caller import HOST

HALF_OPEN: Final = b"POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nX-Half: "
"""A beginning that is never gone on with."""
_BODY_CAP: Final = 32 * 1024
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _request(method: str, path: str, credential: str, body: bytes = b"", *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", f"Authorization: Bearer {credential}"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


def kinds(token: str) -> dict[str, bytes]:
    """Return one of each kind; *token* works, so that what has a body gets as far as that."""
    create, packed = "/api/v1/sessions", "Content-Encoding: gzip"
    return {
        "bad key": _request("GET", create, "tr_dev_" + "x" * 24),
        "bad token": _request("GET", create, f"{token[:-4]}AAAA"),
        "broken JSON": _request("POST", create, token, b'{"type": "chat.agent", "tags": ['),
        "deep JSON": _request("POST", create, token, b"[" * _BODY_CAP),
        "body over the cap": _request("POST", create, token, b" " * (2 * _BODY_CAP)),
        "bomb": _request("POST", create, token, gzip.compress(b" " * 10_000_000), packed),
        "gzip that is cut short": _request("POST", create, token, gzip.compress(b"{}" * 1000)[:-6], packed),
        "large headers": _request("GET", create, token, b"", *(f"X-{number}: {'x' * 1000}" for number in range(60))),
        "long URL": _request("GET", f"/{'x' * 20_000}", token),
        "unknown route": _request("GET", "/wp-login.php", token),
        "no HTTP": bytes(range(128, 256)) * 4,
        "HTTP/2 garbage": _PREFACE + bytes(range(256)),
    }


def in_turns(token: str) -> Iterator[tuple[str, bytes]]:
    """Yield all kinds in turns, without an end."""
    return itertools.cycle(kinds(token).items())
