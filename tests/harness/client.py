"""A small HTTP client that speaks the sessions contract, and does not retry by itself."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import attrs

LONGEST_LINE: Final = 4 * 1_048_576
"""A frame is one line, of records of a mebibyte in all, which JSON may write twice as long or more."""


@attrs.frozen
class Answer:
    """An HTTP answer, read whole."""

    status: int
    body: Any
    headers: Mapping[str, str]


@attrs.frozen
class Frame:
    """One event of an SSE response."""

    event: str
    data: Any
    id: str | None = None

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of a batch; none for other events."""
        return list(self.data["records"]) if self.event == "batch" else []


@attrs.define(eq=False)
class Client:
    """Calls one server with one credential."""

    http: aiohttp.ClientSession
    address: str
    key: str

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Make a request and read its answer."""
        data = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        sent = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, self.address + path, data=data, headers=sent) as response:
            text = await response.text()
            parsed = json.loads(text) if "json" in response.headers.get("Content-Type", "") and text else text
            return Answer(response.status, parsed, response.headers.copy())

    async def create(self, external_id: str | None = None, task: str = "echo", **more: Any) -> Answer:
        """Create a session."""
        body = {"type": "chat.agent", "taskIdentifier": task, "triggerConfig": {"basePayload": {}}, **more}
        return await self.call("POST", "/api/v1/sessions", body | ({"externalId": external_id} if external_id else {}))

    async def append(self, name: str, text: str, part_id: str | None = None, io: str = "in", **headers: str) -> Answer:
        """Append a text to a channel."""
        more = headers | ({"X_Part_Id": part_id} if part_id else {})
        return await self.call("POST", f"/realtime/v1/sessions/{quote(name, safe='')}/{io}/append", text, **more)

    async def say(self, name: str, text: str, part_id: str | None = None) -> Answer:
        """Append a chat message."""
        return await self.append(name, message(text), part_id)

    async def records(self, name: str, io: str, after: int | None = None) -> list[dict[str, Any]]:
        """Read everything that a channel holds after a seq."""
        query = "" if after is None else f"?afterEventId={after}"
        answer = await self.call("GET", f"/realtime/v1/sessions/{quote(name, safe='')}/{io}/records{query}")
        assert answer.status == 200, answer
        return list(answer.body["records"])

    @asynccontextmanager
    async def subscribe(
        self, name: str, io: str = "out", after: int | None = None, window: int = 30, **headers: str
    ) -> AsyncGenerator[tuple[aiohttp.ClientResponse, AsyncGenerator[Frame]]]:
        """Subscribe to a channel; gives the response and its frames."""
        sent = {"Authorization": f"Bearer {self.key}", "Timeout-Seconds": str(window), "Accept": "text/event-stream"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if after is not None:
            sent["Last-Event-ID"] = str(after)
        url = f"{self.address}/realtime/v1/sessions/{quote(name, safe='')}/{io}"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=window + 30)
        async with self.http.get(url, headers=sent, timeout=timeout, read_bufsize=LONGEST_LINE) as response:
            yield response, frames(response)

    async def turn(self, name: str, after: int | None = None, window: int = 30) -> tuple[str, int]:
        """Read ``out`` up to the next turn-complete; return the text and that record's seq."""
        text = ""
        async with self.subscribe(name, after=after, window=window) as (_, events):
            async for frame in events:
                for record in frame.records:
                    if is_control(record, "turn-complete"):
                        return text, record["seq_num"]
                    text += delta_of(record)
        raise AssertionError(f"no turn-complete on {name!r}; text so far: {text!r}")


async def frames(response: aiohttp.ClientResponse) -> AsyncGenerator[Frame]:
    """Parse an SSE body."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif not line and "data" in fields:
            data = fields["data"]
            parsed = data if data == "[DONE]" else json.loads(data)
            yield Frame(fields.get("event", "message"), parsed, fields.get("id"))
            fields = {}


def message(text: str) -> str:
    """Return the ``in`` record of a user's chat message."""
    said = {"id": "u", "role": "user", "parts": [{"type": "text", "text": text}]}
    return json.dumps({"kind": "message", "payload": {"message": said, "trigger": "submit-message"}})


def is_control(record: dict[str, Any], subtype: str) -> bool:
    """Tell whether an SSE record is a control record of this subtype."""
    return ["trigger-control", subtype] in record.get("headers", [])


def is_command(record: dict[str, Any]) -> bool:
    """Tell whether an SSE record is a command of the log to itself, such as S2's for a guard. Clients ignore these."""
    return any(not name for name, _ in record.get("headers", []))


def delta_of(record: dict[str, Any]) -> str:
    """Return the text delta in an SSE record, or nothing."""
    if is_command(record):
        return ""
    body = record.get("body") or "{}"
    data = json.loads(body).get("data")
    return data.get("delta", "") if isinstance(data, dict) else ""
