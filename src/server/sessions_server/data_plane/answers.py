"""Answers that are sent as a whole, and the headers of those that are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from sessions_server.data_plane.failures import S2Error
from sessions_server.exchange import Exchange

JSON: Final = "application/json"
PROTOBUF: Final = "application/protobuf"
SESSION: Final = "s2s/proto"
EVENTS: Final = "text/event-stream"
_UNBUFFERED: Final = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


@attrs.frozen(kw_only=True)
class Answer:
    """A whole answer."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = attrs.field(factory=dict)

    async def send(self, exchange: Exchange) -> None:
        """Send it."""
        headers = {"content-type": self.content_type, "content-length": str(len(self.body)), **self.headers}
        await exchange.start(self.status, headers)
        if self.body and exchange.method != "HEAD":
            await exchange.write(self.body)


def refusal(error: S2Error, headers: Mapping[str, str]) -> Answer:
    """Make the answer to what went wrong, with further *headers*."""
    return Answer(status=error.status, body=error.text, headers={name.lower(): text for name, text in headers.items()})


def stream_headers(content_type: str) -> dict[str, str]:
    """Return the headers of an answer that comes in pieces."""
    return {"content-type": content_type, **_UNBUFFERED}
