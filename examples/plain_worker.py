"""An engine of one's own: runs of a sessions server carried out without our library, over HTTP alone.

Start it with `SESSIONS_WEBHOOK_SECRET=whsec_... python examples/plain_worker.py --port 9000 --server http://127.0.0.1:8787`,
and the server with the same secret, `SESSIONS_DISPATCHER=webhook` and `SESSIONS_WEBHOOK_URL=http://127.0.0.1:9000/runs`.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp import web

TOLERANCE_SECONDS = 300
IDLE_SECONDS = 60
CALL_SECONDS = 10
PAUSES = (0.1, 0.2, 0.5, *(1,) * 15)


class OverError(Exception):
    """The attempt is over: the run was replaced, or somebody else carries it out. Whoever has it stops."""


def is_genuine(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Verify a signature after the Standard Webhooks specification."""
    message_id, timestamp, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    # Anybody may post anything: what cannot be a header of ours must not raise either.
    if not f"{message_id}{timestamp}{given}".isascii() or not (timestamp.isdigit() and len(timestamp) < 16):
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{message_id}.{timestamp}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    is_fresh = abs(time.time() - int(timestamp)) < TOLERANCE_SECONDS
    return is_fresh and any(hmac.compare_digest(wanted, signature) for signature in given.split())


class Server:
    """The sessions server, called with one run token."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self.http, self.url, self.token = http, url, token

    def headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", **more}

    async def post(
        self, path: str, body: Any, headers: Mapping[str, str] | None = None, pauses: Sequence[float] = PAUSES
    ) -> Any:
        """Call a route, again and again while the server is away: that is safe, as every call names its attempt."""
        for pause in pauses:
            with contextlib.suppress(aiohttp.ClientConnectionError, asyncio.TimeoutError):
                async with self.http.post(self.url + path, json=body, headers=self.headers(headers or {})) as response:
                    if response.status == 409:
                        raise OverError((await response.json())["code"])
                    if response.status < 500:
                        response.raise_for_status()
                        return await response.json()
            await asyncio.sleep(pause)
        raise ConnectionError(f"no answer from {self.url}")

    async def follow(self, path: str, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield the records of a channel after seq *after*, until none has come for a while."""
        headers = {"Last-Event-ID": str(after), "Timeout-Seconds": str(IDLE_SECONDS)}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=IDLE_SECONDS + 10)
        async with self.http.get(self.url + path, headers=self.headers(headers), timeout=timeout) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    for record in json.loads(line[6:]).get("records", []):
                        yield record


class Attempt:
    """One attempt of one run, from its beginning to its end."""

    def __init__(self, server: Server, begun: dict[str, Any]) -> None:
        self.server, self.begun = server, begun
        self.run, self.last_seq = begun["runId"], begun["lastSeqNum"]

    @classmethod
    async def begin(cls, server: Server, request: Mapping[str, Any]) -> "Attempt":
        path = f"/engine/v1/runs/{request['runId']}/attempts/start"
        return cls(server, await server.post(path, {"attempt": request["attempt"]}, pauses=[0]))

    async def call(self, what: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        named = {"X-Session-Epoch": str(self.begun["epoch"]), **(headers or {})}
        return await self.server.post(f"/engine/v1/runs/{self.run}/{what}", body, named)

    async def carry_out(self) -> None:
        """Answer until nobody says anything for a while. Whatever comes after that starts another run."""
        answering = asyncio.create_task(self.answer_all())
        beating = asyncio.create_task(self.beat_forever())
        try:
            done, _ = await asyncio.wait((answering, beating), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            outcome = {"status": "COMPLETED_SUCCESSFULLY", "lastSeqNum": self.last_seq}
        except asyncio.CancelledError:
            outcome = {"status": "CANCELED"}
        except OverError as error:
            print(f"{self.run} is over: {error}", flush=True)
            return
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the run's outcome
            outcome = {"status": "COMPLETED_WITH_ERRORS", "error": type(error).__name__}
        finally:
            answering.cancel()
            beating.cancel()
        try:
            await self.call("attempts/complete", outcome)
            print(f"{self.run} has ended: {outcome['status']}", flush=True)
        except (OverError, aiohttp.ClientError, ConnectionError) as error:
            print(f"{self.run} is over: {error}", flush=True)  # the server finds out, as the heartbeats have ended

    async def beat_forever(self) -> None:
        while True:
            await asyncio.sleep(self.begun["stallSeconds"] / 5)
            answer = await self.call("heartbeat")
            self.server.token = answer["token"] or self.server.token

    async def answer_all(self) -> None:
        path = f"/realtime/v1/sessions/{self.begun['sessionId']}/in"
        while True:
            try:
                async for record in self.server.follow(path, self.last_seq):
                    if record.get("body"):
                        await self.answer(record["seq_num"], json.loads(json.loads(record["body"])["data"]))
                    self.last_seq = record["seq_num"]
            except aiohttp.ClientError:
                await asyncio.sleep(0.5)  # the server is away; while the heartbeats get through, it comes back
            else:
                return

    async def answer(self, seq: int, said: Mapping[str, Any]) -> None:
        """Answer one message in chunks of the AI SDK; the last append ends the turn and commits the message."""
        parts = ((said.get("payload") or {}).get("message") or {}).get("parts", [])
        text = "".join(part.get("text", "") for part in parts)
        if not text:
            return
        block = f"text-{seq}"
        await self.write(f"{seq}-start", {"type": "start"}, {"type": "text-start", "id": block})
        for number, word in enumerate(f"a plain worker heard: {text}".split(" ")):
            await self.write(f"{seq}-{number}", {"type": "text-delta", "id": block, "delta": f"{word} "})
            if text.startswith("slow"):
                await asyncio.sleep(0.2)
        end = ({"type": "text-end", "id": block}, {"type": "finish"})
        await self.write(f"{seq}-end", *end, turnComplete={"lastSeqNum": seq})

    async def write(self, part: str, *chunks: Any, **more: Any) -> None:
        """Append to `out`. The name of the part makes a repetition harmless; another attempt's parts are others."""
        records = [{"data": chunk} for chunk in chunks]
        part = f"{self.run}-{self.begun['epoch']}-{part}"
        await self.call("out/append", {"records": records, **more}, {"X-Part-Id": part})


class Worker:
    """Takes run requests, and carries them out side by side."""

    def __init__(self, http: aiohttp.ClientSession, url: str, secret: str) -> None:
        self.http, self.url, self.secret = http, url, secret
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not is_genuine(self.secret, request.headers, body):
            return web.Response(status=401)
        message = json.loads(body)
        run = message["data"]["runId"]
        if message["type"] == "run.canceled":
            if run in self.tasks:
                self.tasks[run].cancel()
        elif message["type"] == "run.requested":
            # What is answered with 202 must not get lost. This worker keeps nothing, so it begins first: if it dies from here
            # on, the server misses its heartbeats.
            try:
                attempt = await Attempt.begin(Server(self.http, self.url, message["data"]["token"]), message["data"])
            except OverError:
                return web.Response(status=202)  # a request that came twice, or too late
            except aiohttp.ClientResponseError:
                return web.Response(status=500)  # not this run; the server will ask again, and for others meanwhile
            except (aiohttp.ClientError, ConnectionError):
                return web.Response(status=503)  # nothing now
            self.start(attempt)
        return web.Response(status=202)

    def start(self, attempt: Attempt) -> None:
        task = self.tasks[attempt.run] = asyncio.create_task(attempt.carry_out())
        task.add_done_callback(lambda _: self.tasks.pop(attempt.run, None))

    async def stop(self) -> None:
        """End all attempts; what they have not answered goes on in other runs."""
        for task in list(self.tasks.values()):
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def build_app(url: str, secret: str) -> web.Application:
    async def keep_worker(app: web.Application) -> AsyncIterator[None]:
        # One that hangs must not keep an attempt from its heartbeats.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_SECONDS)) as http:
            worker = Worker(http, url, secret)
            app.router.add_post("/runs", worker.take)
            yield
            await worker.stop()

    app = web.Application()
    app.cleanup_ctx.append(keep_worker)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A plain worker for a sessions server.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--server", default="http://127.0.0.1:8787")
    given = parser.parse_args()
    web.run_app(build_app(given.server, os.environ["SESSIONS_WEBHOOK_SECRET"]), host="127.0.0.1", port=given.port)
