"""Writing a batch until it is written.

How this works
--------------
An index that gives no answer is tried again for ever, in growing pauses: nothing is dropped. Rows that it refuses are found
by halving: the halves without such a row are written, and what remains are single rows, which become dead letters. A batch
that could not be written several times in a row is halved as well, as it may be too large to be written in the time
there is. If the index was simply away, that costs a few small writes when it is back.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import TypeVar

import anyio
import attrs

from sessions_core.domain.events import ChangeDeadLettered, FlushAttemptFailed, RowsFlushed
from sessions_core.errors import IndexRefusedError, UnavailableError
from sessions_core.ports.change_feed import Change
from sessions_core.ports.clock import Clock
from sessions_core.ports.dead_letters import DeadLetter, DeadLetters
from sessions_core.ports.observer import Observer
from sessions_core.ports.session_index import IndexWriter
from sessions_core.services.replication.backoff import Backoff
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_core.services.replication.letters import letter_of_refused
from sessions_core.services.replication.telling import reason_of

T = TypeVar("T")


@attrs.define(eq=False)
class _Effort:
    """What one batch has cost so far."""

    batch: int
    attempts: int = 0
    failures: int = 0


@attrs.define(kw_only=True, eq=False)
class Delivery:
    """Brings rows into the index, and what does not go there to the dead letters.

    Attributes:
        chance: Gives numbers from 0 to 1, for the pauses.
    """

    writer: IndexWriter
    dead_letters: DeadLetters
    clock: Clock
    observer: Observer
    config: ReplicatorConfig
    chance: Callable[[], float] = random.random
    _numbers: count[int] = attrs.field(init=False, factory=lambda: count(1))

    async def deliver(self, changes: Sequence[Change], letters: Sequence[DeadLetter] = (), *, since: datetime) -> None:
        """Write *changes* and *letters*, however long that takes. Cancel it to give up; doing it again is safe.

        When it returns, each change is in the index or among the dead letters.

        Args:
            changes: At most one of each session.
            letters: Of changes that could not be read.
            since: When the oldest change was committed.
        """
        effort = _Effort(next(self._numbers))
        began = anyio.current_time()
        dead = [*letters, *await self._write(effort, changes)]
        if dead:
            await self._bury(effort, dead)
        self.observer(
            RowsFlushed(
                batch=effort.batch,
                rows=len(changes) + len(letters) - len(dead),
                letters=len(dead),
                attempts=effort.attempts,
                took=timedelta(seconds=anyio.current_time() - began),
                lag=max(self.clock.now() - since, timedelta()),
            )
        )

    async def _write(self, effort: _Effort, changes: Sequence[Change]) -> list[DeadLetter]:
        """Write *changes*; return the letters of those that the index does not take."""
        if not changes:
            return []
        write = partial(self.writer.write, [change.row for change in changes])
        limit = None if len(changes) == 1 else self.config.insert_attempts
        try:
            await self._insist(effort, write, len(changes), limit)
        except (IndexRefusedError, UnavailableError) as error:
            if len(changes) == 1:
                return [letter_of_refused(changes[0], error)]
            middle = len(changes) // 2
            first = await self._write(effort, changes[:middle])
            return first + await self._write(effort, changes[middle:])
        return []

    async def _bury(self, effort: _Effort, letters: Sequence[DeadLetter]) -> None:
        await self._insist(effort, partial(self.dead_letters.store, letters), len(letters), None)
        for letter in letters:
            self.observer(ChangeDeadLettered(session_id=letter.session, version=letter.version, kind=letter.kind.value))

    async def _insist(self, effort: _Effort, call: Callable[[], Awaitable[T]], rows: int, limit: int | None) -> T:
        """Return what *call* returns. An UnavailableError leaves only after *limit* attempts, and a pause after the last."""
        for attempt in count(1):
            effort.attempts += 1
            began = anyio.current_time()
            try:
                answer = await call()
            except UnavailableError as error:
                await self._pause(effort, rows, anyio.current_time() - began, error)
                if attempt == limit:
                    raise
            else:
                effort.failures = 0
                return answer
        raise AssertionError

    async def _pause(self, effort: _Effort, rows: int, took: float, error: UnavailableError) -> None:
        effort.failures += 1
        config = self.config
        backoff = Backoff(base=config.insert_base_delay, cap=config.insert_max_delay, jitter=config.insert_jitter)
        pause = backoff.pause(effort.failures, self.chance())
        self.observer(
            FlushAttemptFailed(
                batch=effort.batch,
                rows=rows,
                attempt=effort.failures,
                took=timedelta(seconds=took),
                pause=pause,
                error=reason_of(error),
                is_failed=effort.failures % config.insert_attempts == 0,
            )
        )
        await anyio.sleep(pause.total_seconds())
