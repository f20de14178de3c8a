"""Endless readings of streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import anyio
import attrs
from s2_sdk import ReadBatch, ReadSession, S2ServerError

from sessions_adapters.s2.failures import is_missing, translated
from sessions_adapters.s2.reader import batch_of
from sessions_adapters.s2.records import record_of
from sessions_adapters.s2.stream import Stream
from sessions_core.domain.channel import Batch

CLOSE_SECONDS: Final = 5.0
CANCEL_AGAIN_SECONDS: Final = 0.02


@attrs.define(eq=False)
class Follower(AsyncIterator[Batch]):
    """One reading of one stream. The driver reconnects by itself, and goes on where it was.

    A step runs in a task of its own, so that one who stops waiting for it loses nothing: the next who waits gets it.
    """

    _stream: Stream
    _position: int
    _session: ReadSession | None = attrs.field(init=False, default=None)
    _step: asyncio.Task[ReadBatch] | None = attrs.field(init=False, default=None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        while True:
            if self._step is None:
                self._step = asyncio.get_running_loop().create_task(self._pull())
            await asyncio.wait([self._step])
            step, self._step = self._step, None
            with translated():
                found = step.result()
            records = tuple(record_of(record) for record in found.records if record.seq_num >= self._position)
            if records:
                self._position = records[-1].seq + 1
                return batch_of(records, found.tail)

    async def close(self) -> None:
        """Stop reading."""
        if self._step is not None:
            self._step.cancel()
            await _end(self._step)
        if self._session is not None:
            await _end(asyncio.get_running_loop().create_task(self._session.close()))

    async def _pull(self) -> ReadBatch:
        while True:
            if self._session is None:
                self._session = self._stream.session(self._position)
            try:
                return await anext(self._session)
            except StopAsyncIteration:
                self._session = None
            except S2ServerError as error:
                self._session = None
                if not is_missing(error):
                    raise
                await self._stream.ensure()


async def _end(task: asyncio.Task[Any]) -> None:
    """Wait for *task*, cancelling it again when it does not come to its end.

    The driver waits with ``asyncio.wait_for``, which before Python 3.12 forgets a cancellation that comes together with
    what it waits for. Then its session reads on, and closing it would wait for good.
    """
    while not (await asyncio.wait([task], timeout=CANCEL_AGAIN_SECONDS))[0]:
        task.cancel()
    if not task.cancelled():
        task.exception()


@asynccontextmanager
async def follow(stream: Stream, start: int) -> AsyncGenerator[Follower]:
    """Follow *stream* from *start* on. One that is not there is made, so that its first record is heard of."""
    follower = Follower(stream, start)
    try:
        yield follower
    finally:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await follower.close()
