"""A job of the load client: how long a plain notification of Postgres takes from one connection to another."""

from __future__ import annotations

import asyncio
from time import perf_counter, process_time
from typing import Any, Final

import asyncpg
import attrs

from benchmarks.samples import Samples

_CHANNEL: Final = "yardstick"
_NOTIFY: Final = "select pg_notify($1, $2)"
_PATIENCE_SECONDS: Final = 20


@attrs.frozen(kw_only=True)
class Notifications:
    """Notifications at a fixed rate, whether the last one has come or not.

    Attributes:
        rate: Notifications per second.
    """

    url: str
    rate: float
    warm_up_seconds: float
    seconds: float

    def run(self) -> Samples:
        """Notify, and time until it is heard."""
        return asyncio.run(self._run())

    async def _run(self) -> Samples:
        speaker, listener = await asyncpg.connect(self.url), await asyncpg.connect(self.url)
        try:
            return await self._time(speaker, listener)
        finally:
            await speaker.close()
            await listener.close()

    async def _time(
        self, speaker: asyncpg.Connection[asyncpg.Record], listener: asyncpg.Connection[asyncpg.Record]
    ) -> Samples:
        warm, count = round(self.rate * self.warm_up_seconds), round(self.rate * self.seconds)
        sent_at, heard_at, all_heard = list[float](), list[float](), asyncio.Event()

        def hear(*_: Any) -> None:
            heard_at.append(perf_counter())
            if len(heard_at) == warm + count:
                all_heard.set()

        await listener.add_listener(_CHANNEL, hear)
        notify = await speaker.prepare(_NOTIFY)
        started, busy = perf_counter(), process_time()
        for number in range(1, warm + count + 1):
            sent_at.append(perf_counter())
            await notify.fetchval(_CHANNEL, str(number))
            await asyncio.sleep(max(0.0, started + number / self.rate - perf_counter()))
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await all_heard.wait()
        seconds = perf_counter() - started
        latencies = [heard - sent for sent, heard in zip(sent_at, heard_at, strict=True)]
        return Samples(
            latencies=latencies[warm:], seconds=seconds, sent=[warm + count], busy=(process_time() - busy) / seconds
        )
