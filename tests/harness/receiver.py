"""A little engine in a process of its own: takes signed run requests, and lets whoever asks carry them out.

It keeps what it has taken in memory, which is enough for as long as it lives. The signature is checked here by the words of
the specification, and not with the code under test.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from aiohttp import web

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
from harness.services import Service

SECRET: Final = "whsec_" + base64.b64encode(b"a secret of the test harness".ljust(32, b".")).decode()
TOLERANCE_SECONDS: Final = 300


def is_genuine(headers: Any, body: bytes, secret: str = SECRET) -> bool:
    """Tell whether *body* was signed with *secret* a short while ago."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    wanted = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    given = [base64.b64decode(word[3:]) for word in headers["webhook-signature"].split() if word.startswith("v1,")]
    is_fresh = abs(time.time() - int(timestamp)) < TOLERANCE_SECONDS
    return is_fresh and any(hmac.compare_digest(wanted, signature) for signature in given)


@attrs.define(eq=False)
class Engine:
    """What it has taken, and who has it."""

    queued: dict[str, None] = attrs.field(factory=dict)
    executing: dict[str, None] = attrs.field(factory=dict)
    cancelled: dict[str, None] = attrs.field(factory=dict)
    requests: list[dict[str, Any]] = attrs.field(factory=list)
    answers: list[int | float] = attrs.field(factory=list)
    """What the next requests get instead: a status, or so many seconds of silence if it is no whole number."""
    version: int = 0
    changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)

    async def take_in(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, float):
                await asyncio.sleep(answer)
            else:
                return web.Response(status=answer, headers={"Location": "/runs"})
        if not is_genuine(request.headers, body):
            return web.Response(status=401)
        message = json.loads(body)
        self.requests.append({"headers": dict(request.headers), "body": message})
        run = message["data"]["runId"]
        if message["type"] == "run.canceled":
            self.queued.pop(run, None)
            if run in self.executing:
                self.cancelled[run] = None
        elif run not in self.executing:
            self.queued[run] = None
        await self.tell()
        return web.Response(status=202)

    async def show(self, request: web.Request) -> web.Response:
        after = int(request.query.get("after", -1))
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: self.version > after), 30)
        state = {"version": self.version, "queued": list(self.queued), "cancelled": list(self.cancelled)}
        return web.json_response(state)

    async def hand_out(self, request: web.Request) -> web.Response:
        """Give those runs that are still queued to the caller."""
        taken = [run for run in await request.json() if run in self.queued]
        for run in taken:
            del self.queued[run]
            self.executing[run] = None
        return web.json_response(taken)

    async def take_back(self, request: web.Request) -> web.Response:
        """Queue runs again that were handed out and not begun."""
        for run in await request.json():
            del self.executing[run]
            if self.cancelled.pop(run, self) is self:
                self.queued[run] = None
        return web.json_response({})

    async def finish(self, request: web.Request) -> web.Response:
        run = await request.json()
        self.executing.pop(run, None)
        self.cancelled.pop(run, None)
        return web.json_response({})

    async def misbehave(self, request: web.Request) -> web.Response:
        self.answers.extend(await request.json())
        return web.json_response({})

    async def forget(self, _: web.Request) -> web.Response:
        for memory in (self.queued, self.executing, self.cancelled, self.requests, self.answers):
            memory.clear()
        return web.json_response({})

    async def list_requests(self, _: web.Request) -> web.Response:
        return web.json_response(self.requests)

    async def tell(self) -> None:
        self.version += 1
        async with self.changed:
            self.changed.notify_all()


async def serve(port: int) -> None:
    """Serve until the process ends."""
    engine = Engine()
    app = web.Application()
    app.add_routes(
        [
            web.post("/runs", engine.take_in),
            web.get("/state", engine.show),
            web.post("/take", engine.hand_out),
            web.post("/give_back", engine.take_back),
            web.post("/done", engine.finish),
            web.post("/misbehave", engine.misbehave),
            web.post("/forget", engine.forget),
            web.get("/requests", engine.list_requests),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@contextmanager
def open_receiver(port: int = 0) -> Generator[str]:
    """Run one on a free port until the block ends; gives its address."""
    command = [sys.executable, str(Path(__file__)), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


RECEIVER: Final = Service(open_receiver)
"""One for all tests that are content with an engine which has forgotten what was before (``POST /forget``)."""


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
