"""The order desk of examples/: one of its services as a process, and a client of it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import attrs

from harness.client import Answer, Frame, frames
from harness.server import ServerProcess

READ_SECONDS = 30
EXAMPLES = Path(__file__).parents[2] / "examples"


@attrs.define(eq=False)
class DeskProcess(ServerProcess):
    """An order desk in a process of its own."""

    script: str = "embedded_service.py"

    def command(self) -> list[str]:
        """Return the command that the example's first lines name."""
        return [sys.executable, str(EXAMPLES / self.script), "--port", str(self.port), "--data", str(self.data)]


@attrs.define(eq=False)
class Desk:
    """What a tenant sees of an order desk."""

    process: DeskProcess
    http: aiohttp.ClientSession
    tenant: str | None

    def as_tenant(self, name: str | None) -> Desk:
        """Return the same desk as another tenant sees it."""
        return Desk(self.process, self.http, name)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Make a request and read its answer; a text or bytes are sent as they are."""
        data = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        url, timeout = f"{self.process.address}/chats/{path}", aiohttp.ClientTimeout(total=READ_SECONDS)
        async with self.http.request(
            method, url, data=data, headers=self._headers(headers), timeout=timeout
        ) as response:
            body = await response.json() if response.content_type == "application/json" else await response.text()
            return Answer(response.status, body, response.headers.copy())

    async def say(self, chat: str, text: str, **headers: str) -> int:
        """Send an order; return its number."""
        return _seq(await self.call("POST", f"{chat}/messages", {"text": text}, **headers))

    async def decide(self, chat: str, order: int, *, approve: bool) -> int:
        """Send a decision; return its seq."""
        return _seq(await self.call("POST", f"{chat}/decisions", {"order": order, "approve": approve}))

    async def stop(self, chat: str) -> int:
        """Stop the answer being written; return the seq of that."""
        return _seq(await self.call("POST", f"{chat}/stop"))

    async def follow(self, chat: str, after: int | None = None) -> AsyncGenerator[Frame]:
        """Give the events of the chat's stream until it ends."""
        query = "" if after is None else f"?after={after}"
        url = f"{self.process.address}/chats/{chat}/answers{query}"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
        async with self.http.get(url, headers=self._headers({}), timeout=timeout) as response:
            assert response.status == 200, await response.text()
            async with aclosing(frames(response)) as events:
                async for frame in events:
                    yield frame

    async def until(self, chat: str, kind: str, after: int | None = None, *, times: int = 1) -> list[Frame]:
        """Read the stream up to an event whose name, or whose chunk's type, is *kind*, for the n-th time."""
        seen: list[Frame] = []
        with anyio.fail_after(READ_SECONDS):
            async with aclosing(self.follow(chat, after)) as events:
                async for frame in events:
                    seen.append(frame)
                    times -= kind in (frame.event, chunk_type(frame))
                    if times == 0:
                        return seen
        raise AssertionError(f"the stream ended before {kind}: {seen[-3:]}")

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        tenant = {"X-Tenant": self.tenant} if self.tenant else {}
        return {"Content-Type": "application/json"} | tenant | {name.replace("_", "-"): more[name] for name in more}


def _seq(answer: Answer) -> int:
    assert answer.status == 200, answer
    return int(answer.body["seq"])


def chunk_type(frame: Frame) -> str | None:
    """Return the type of the UI-message chunk in a frame, or None if it holds none."""
    return frame.data["data"]["type"] if frame.event == "chunk" else None


def text_of(seen: list[Frame]) -> str:
    """Return the text of the last answer that was begun."""
    begun = max((n for n, frame in enumerate(seen) if chunk_type(frame) == "start"), default=0)
    return "".join(frame.data["data"]["delta"] for frame in seen[begun:] if chunk_type(frame) == "text-delta")


def last_id(seen: list[Frame]) -> int:
    """Return where the stream goes on after *seen*."""
    assert seen[-1].id is not None
    return int(seen[-1].id)
