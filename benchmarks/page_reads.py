"""A job of a load client: pages of lists of sessions, from an index through its adapter, from short and from long lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from time import perf_counter, process_time
from typing import Final

import attrs

from benchmarks.lists import ENVIRONMENT, end_of_month, middle
from benchmarks.samples import Samples
from benchmarks.targets import in_turn
from sessions_core.domain.pagination import PageRequest, SessionFilter
from sessions_core.ports.session_index import SessionIndex

PAGE: Final = 50
FIRST: Final = "first page"
MIDDLE: Final = "page in the middle"
MONTHS_END: Final = "page over a month's end"
KINDS: Final = (FIRST, MIDDLE, MONTHS_END)
EVERYTHING: Final = SessionFilter(environment_id=ENVIRONMENT.id)

Place = tuple[str, int]
"""Which page, and how many sessions the list has."""
OpenList = Callable[[str, int], AbstractAsyncContextManager[SessionIndex]]


@attrs.frozen(kw_only=True)
class PageReads:
    """Pages of lists of different lengths, by turns.

    Attributes:
        open: Fills a list of so many sessions at a URL, and gives its index.
        counts: Sessions of each list.
        samples: How often each page is read in a round.
    """

    open: OpenList
    url: str
    counts: tuple[int, ...]
    rounds: int
    samples: int

    def run(self) -> list[dict[Place, Samples]]:
        """Fill the lists, read pages, and time them; return what each round has found."""
        return asyncio.run(self._run())

    async def _run(self) -> list[dict[Place, Samples]]:
        async with AsyncExitStack() as stack:
            reads = [
                read
                for count in self.counts
                for read in _reads(await stack.enter_async_context(self.open(self.url, count)), count)
            ]
            await self._round(reads)
            return [await self._round(in_turn(reads, number)) for number in range(self.rounds)]

    async def _round(self, reads: list[_Read]) -> dict[Place, Samples]:
        latencies: dict[Place, list[float]] = {read.place: [] for read in reads}
        started, busy = perf_counter(), process_time()
        for _ in range(self.samples):
            for read in reads:
                latencies[read.place].append(await read.time())
        share = (process_time() - busy) / (perf_counter() - started)
        return {
            place: Samples(latencies=times, seconds=sum(times), sent=[len(times)], busy=share)
            for place, times in latencies.items()
        }


@attrs.frozen
class _Read:
    """A page of a list."""

    place: Place
    index: SessionIndex
    request: PageRequest

    async def time(self) -> float:
        """Read it; return how many seconds that took."""
        before = perf_counter()
        found = await self.index.select(ENVIRONMENT, EVERYTHING, self.request)
        seconds = perf_counter() - before
        if len(found) != PAGE + 1:
            raise RuntimeError(f"{self.place}: {len(found)} sessions instead of a page and one more")
        return seconds


def _reads(index: SessionIndex, count: int) -> list[_Read]:
    return [
        _Read((FIRST, count), index, PageRequest(size=PAGE)),
        _Read((MIDDLE, count), index, PageRequest(size=PAGE, cursor=middle(count))),
        _Read((MONTHS_END, count), index, PageRequest(size=PAGE, cursor=end_of_month(count))),
    ]
