"""Those who read and wait while a fleet is killed around them, and what they find wrong."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import re
import time
from collections import Counter
from typing import Any, Final

import aiohttp
import asyncpg
import attrs

from harness.client import Answer, Client, delta_of, is_command

LOST: Final = (
    *(aiohttp.ClientError, OSError, TimeoutError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
)
TIMEOUTS: Final = {"1s": 1, "3s": 3, "8s": 8}
PATIENCE_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 0.05
SIGNATURE: Final = re.compile(r"<(\d+)>")


@attrs.define(eq=False)
class Reader:
    """Follows a channel of a session, now with this server, now with that one, from where it was.

    Attributes:
        chain: A hash over everything it has seen, in that order.
    """

    session: str
    io: str
    clients: list[Client]
    chance: random.Random
    connects: int = 0
    count: int = 0
    chain: str = ""
    _last: int | None = None

    async def go_on_until(self, stop: asyncio.Event) -> None:
        """Read until *stop*, through whatever happens."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(self.chance.uniform(1, 10)):
                    await self._read(self.chance.choice(self.clients))
            except (*LOST, ValueError):
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, client: Client) -> None:
        async with client.subscribe(self.session, self.io, after=self._last, window=10) as (response, frames):
            if response.status != 200:
                return
            self.connects += 1
            async for frame in frames:
                for record in frame.records:
                    if not is_command(record):
                        self._take(record["seq_num"], json.loads(record.get("body") or "{}").get("data"))

    def _take(self, seq: int, data: Any) -> None:
        self.chain, self.count, self._last = _linked(self.chain, seq, data), self.count + 1, seq

    def differences(self, stored: list[dict[str, Any]]) -> list[str]:
        """Say what it has seen otherwise than it is stored, in the same order and without a gap."""
        chain = ""
        for record in stored[: self.count]:
            chain = _linked(chain, record["seqNum"], record["data"])
        if self.count > len(stored) or chain != self.chain:
            return [f"{self.session}/{self.io}: a reader saw {self.count} records up to {self._last}, not as stored"]
        return []


def _linked(before: str, seq: int, data: Any) -> str:
    shown = data if isinstance(data, str) else "" if data is None else json.dumps(data)
    return hashlib.sha256(f"{before}\n{seq}\n{shown}".encode()).hexdigest()


@attrs.define(eq=False)
class Waiter:
    """Lets a session's current run wait for its next input, and asks one server after another for the end of that."""

    session: str
    clients: list[Client]
    chance: random.Random
    ended: Counter[str] = attrs.field(factory=Counter)
    _outputs: list[str] = attrs.field(factory=list)
    _problems: list[str] = attrs.field(factory=list)

    async def go_on_until(self, stop: asyncio.Event) -> None:
        """Wait again and again until *stop*; the last wait is seen to its end."""
        for number in itertools.count():
            if stop.is_set():
                return
            await self._wait(f"{self.session}-{number}")

    async def _wait(self, key: str) -> None:
        timeout = self.chance.choice([*TIMEOUTS])
        waitpoint = await self._create(key, timeout)
        deadline = time.monotonic() + TIMEOUTS[timeout] + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            answer = await self._call("GET", f"/api/v1/waitpoints/tokens/{waitpoint}", Timeout_Seconds="5")
            if answer.body["status"] != "WAITING":
                self._note(answer)
                return
        self._problems.append(f"{self.session}: {waitpoint} still waits long after its timeout of {timeout}")

    async def _create(self, key: str, timeout: str) -> str:
        runs = await self._call("GET", f"/api/v1/sessions/{self.session}/runs")
        asked = {"session": self.session, "io": "in", "timeout": timeout, "idempotencyKey": key}
        path = f"/api/v1/runs/{runs.body['data'][0]['runId']}/session-streams/wait"
        return str((await self._call("POST", path, asked)).body["waitpointId"])

    async def _call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Ask one server or another until one answers."""
        while True:
            try:
                answer = await self.chance.choice(self.clients).call(method, path, body, **headers)
            except LOST:
                answer = None
            if answer is not None and answer.status == 200:
                return answer
            if answer is not None and answer.status < 500:
                self._problems.append(f"{self.session}: {answer.status} {answer.body}")
            await asyncio.sleep(RETRY_SECONDS)

    def _note(self, answer: Answer) -> None:
        self.ended[answer.body["status"].lower()] += 1
        if answer.body["status"] == "COMPLETED":
            self._outputs.append(answer.body["output"])

    def problems(self, stored: list[dict[str, Any]]) -> list[str]:
        """Say what was wrong; what it was woken with must be in *stored*."""
        texts = {record["data"] for record in stored}
        strange = [output for output in self._outputs if output not in texts]
        return self._problems + [f"{self.session}: woken with {output!r:.100}" for output in strange]


def epochs_that_fall(name: str, stored: list[dict[str, Any]]) -> list[str]:
    """Say where a run has written after its successor: every piece of an answer says under which epoch it was written."""
    deltas = [delta_of({"body": json.dumps({"data": record["data"]})}) for record in stored]
    epochs = [int(signature[1]) for delta in deltas if (signature := SIGNATURE.match(delta))]
    return [f"{name}: epoch {late} after {early}" for early, late in itertools.pairwise(epochs) if late < early]


async def find_unlisted(client: Client, names: list[str]) -> list[str]:
    """Say which of *names* a walk over all pages of the list does not show exactly once, once it had time to follow."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while wrong := set(names).symmetric_difference(listed := await _walk(client)) or len(listed) != len(names):
        if time.monotonic() > deadline:
            return [f"the list has {len(listed)} sessions of {len(names)}: {wrong!r:.200}"]
        await asyncio.sleep(0.5)
    return []


async def _walk(client: Client) -> list[str]:
    names: list[str] = []
    after: str | None = ""
    while after is not None:
        query = f"&page%5Bafter%5D={after}" if after else ""
        answer = await client.call("GET", f"/api/v1/sessions?page%5Bsize%5D=100{query}")
        assert answer.status == 200, answer
        names += [session["externalId"] for session in answer.body["data"]]
        after = answer.body["pagination"].get("next")
    return names
