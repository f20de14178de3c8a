"""Attempts of runs as an engine outside the server sees them."""

from __future__ import annotations

from typing import Any, Final

import attrs

from harness.client import Answer, Client

DONE: Final = {"status": "COMPLETED_SUCCESSFULLY"}


@attrs.define(eq=False)
class Attempt:
    """One attempt as its engine sees it."""

    client: Client
    run: str
    begun: dict[str, Any]

    @property
    def epoch(self) -> str:
        """Its right to write, as a header says it."""
        return str(self.begun["epoch"])

    async def call(self, what: str, body: Any = None, **headers: str) -> Answer:
        """Call one of the run's routes under the attempt's epoch, unless *headers* name another."""
        return await self.client.call(
            "POST", f"/engine/v1/runs/{self.run}/{what}", body, **{"X_Session_Epoch": self.epoch, **headers}
        )

    async def write(self, *values: Any, **more: Any) -> Answer:
        """Append *values* to ``out``."""
        return await self.call("out/append", {"records": [{"data": value} for value in values], **more})

    async def complete(self, **more: Any) -> Answer:
        """End the attempt well."""
        return await self.call("attempts/complete", DONE | more)


async def start(client: Client, run: str, attempt: int = 1) -> Answer:
    """Ask for an attempt."""
    return await client.call("POST", f"/engine/v1/runs/{run}/attempts/start", {"attempt": attempt})


async def begin(client: Client, run: str, attempt: int = 1) -> Attempt:
    """Begin an attempt, which has to work."""
    answer = await start(client, run, attempt)
    assert answer.status == 200, answer
    return Attempt(client, run, answer.body)


async def run_of(client: Client, run: str) -> dict[str, Any]:
    """Read a run."""
    body: dict[str, Any] = (await client.call("GET", f"/api/v1/runs/{run}")).body
    return body


async def current_run(client: Client, name: str = "chat-1") -> str:
    """Return the id of the run that a session has now."""
    run: str = (await client.call("GET", f"/api/v1/sessions/{name}")).body["currentRunId"]
    return run
