"""The webhook dispatcher with somebody at its other end: a receiver process, and this process, which carries out what it has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import attrs
from aiohttp import ClientSession

from harness.receiver import RECEIVER, SECRET
from sessions_adapters.system import SystemClock
from sessions_adapters.webhook import WebhookConfig, WebhookRunDispatcher
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.services.carrier import Carrier, Execute


@attrs.define(eq=False)
class ReceivedDispatcher(RunDispatcher):
    """Dispatches through the receiver at *address*."""

    dispatcher: WebhookRunDispatcher
    address: str
    http: ClientSession

    async def dispatch(self, run: RunRecord) -> None:
        await self.dispatcher.dispatch(run)

    async def cancel(self, run_id: RunId) -> None:
        await self.dispatcher.cancel(run_id)

    @asynccontextmanager
    async def serve(self, execute: Execute, *, drain: Callable[[], None], patience: timedelta) -> AsyncGenerator[None]:
        """Carry out what the receiver has."""
        carrier = Carrier(lambda *_: None)

        async def carry_out(run_id: RunId) -> None:
            try:
                await execute(run_id)
            finally:
                with anyio.CancelScope(shield=True):
                    await self.tell("done", run_id)

        async with anyio.create_task_group() as tasks:
            try:
                async with carrier.carrying(carry_out, drain=drain, patience=patience):
                    tasks.start_soon(self._obey, carrier)
                    yield
            finally:
                tasks.cancel_scope.cancel()

    async def tell(self, what: str, value: Any) -> Any:
        async with self.http.post(f"{self.address}/{what}", json=value) as response:
            return await response.json()

    async def _obey(self, carrier: Carrier) -> None:
        version = -1
        while True:
            async with self.http.get(f"{self.address}/state", params={"after": version}) as response:
                state = await response.json()
            version = state["version"]
            for run in state["cancelled"]:
                carrier.cancel(run)
            if carrier.is_open and state["queued"]:
                with anyio.CancelScope(shield=True):
                    await self._take(carrier, state["queued"])

    async def _take(self, carrier: Carrier, runs: list[RunId]) -> None:
        taken = await self.tell("take", runs)
        if not carrier.is_open:
            await self.tell("give_back", taken)
            return
        for run in taken:
            carrier.start(run)


async def _give_token(run: RunRecord) -> str:
    return f"token of {run.id}"


@asynccontextmanager
async def open_received_dispatcher() -> AsyncGenerator[ReceivedDispatcher]:
    """Open a dispatcher for a receiver that has nothing."""
    address = RECEIVER.get()
    config = WebhookConfig(url=f"{address}/runs", secrets=SECRET, timeout=timedelta(seconds=10))
    async with WebhookRunDispatcher.connect(config, _give_token, SystemClock()) as dispatcher, ClientSession() as http:
        received = ReceivedDispatcher(dispatcher, address, http)
        await received.tell("forget", None)
        yield received
