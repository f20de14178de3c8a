"""Ports whose every call a test may delay, fail or cut off."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from inspect import iscoroutinefunction
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint

from sessions_core.domain.channel import Batch, Channel


class Tap:
    """Is asked before and after every call of a port."""

    async def before(self, call: str) -> None:
        """Do nothing."""

    async def after(self, call: str) -> None:
        """Do nothing."""


@attrs.define
class SlowAt(Tap):
    """Makes one kind of call very slow."""

    call: str
    seconds: float

    async def before(self, call: str) -> None:
        if call == self.call:
            await anyio.sleep(self.seconds)


class Crash(BaseException):
    """The process died."""


@attrs.define
class CrashAt(Tap):
    """Kills its process at the n-th step while armed: each call is one step before and one after its effect.

    The sweep's questions are no steps: a death there is like one after the step before. A dead process has no effect on anything: every further call is cut off, also that of shielded clean-up.
    """

    step: int
    seen: list[str] = attrs.field(factory=list)
    is_armed: bool = False
    is_dead: bool = False

    async def before(self, call: str) -> None:
        self._step(f"before {call}")

    async def after(self, call: str) -> None:
        self._step(f"after {call}")

    def _step(self, name: str) -> None:
        if self.is_armed and not self.is_dead and ".list_" not in name:
            self.is_dead = len(self.seen) == self.step
            self.seen.append(name)
        if self.is_dead:
            raise Crash


@attrs.define
class FailAt(Tap):
    """Lets the n-th step from arming on fail with *error*, once. The process lives on."""

    step: int
    error: Callable[[str], Exception]
    seen: list[str] = attrs.field(factory=list)
    is_armed: bool = False
    has_failed: bool = False

    async def before(self, call: str) -> None:
        self._step(f"before {call}", call)

    async def after(self, call: str) -> None:
        self._step(f"after {call}", call)

    def _step(self, name: str, call: str) -> None:
        if not self.is_armed or self.has_failed or ".list_" in name:
            return
        self.has_failed = len(self.seen) == self.step
        self.seen.append(name)
        if self.has_failed:
            raise self.error(call)


@attrs.define
class Shuffle(Tap):
    """Delays every call by chance, so that tasks meet in every order; may freeze or kill the process for a while.

    Attributes:
        rng: The only source of chance, so that a seed repeats the whole story.
        freezes: Chance per call that this process stands still for longer than its heartbeat may.
        crashes: Chance per call that it dies.
    """

    rng: random.Random
    freezes: float = 0.0
    crashes: float = 0.0
    frozen_until: float = 0.0
    is_dead: bool = False
    is_calm: bool = False

    async def before(self, call: str) -> None:
        await self._dawdle()

    async def after(self, call: str) -> None:
        await self._dawdle()

    async def _dawdle(self) -> None:
        if not self.is_calm:
            self._maybe_die()
            await self._delay()
        while (rest := self.frozen_until - anyio.current_time()) > 0:
            await anyio.sleep(rest)
        if self.is_dead:
            raise Crash

    async def _delay(self) -> None:
        for _ in range(self.rng.choice((0, 0, 1, 2, 5))):
            await checkpoint()
        if self.rng.random() < 0.1:
            await anyio.sleep(self.rng.choice((0.001, 0.01, 0.1, 1.0)))
        if self.rng.random() < self.freezes:
            self.frozen_until = anyio.current_time() + self.rng.choice((16.0, 25.0, 40.0))

    def _maybe_die(self) -> None:
        if not self.is_dead and self.rng.random() < self.crashes:
            self.is_dead = True
        if self.is_dead:
            raise Crash


class Tapped:
    """A port behind a tap."""

    def __init__(self, inner: Any, tap: Tap) -> None:
        self._inner = inner
        self._tap = tap
        self._name = type(inner).__name__.removeprefix("InMemory")

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self._inner, method)
        if method == "follow":
            return self._follow
        if not iscoroutinefunction(inner):
            return inner
        name = f"{self._name}.{method}"

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._tap.before(name)
            result = await inner(*args, **kwargs)
            await self._tap.after(name)
            return result

        return call

    @asynccontextmanager
    async def _follow(self, channel: Channel, start: int) -> AsyncGenerator[AsyncIterator[Batch]]:
        async with self._inner.follow(channel, start) as batches:
            yield _TappedReading(batches, self._tap)


@attrs.define
class _TappedReading(AsyncIterator[Batch]):
    _batches: AsyncIterator[Batch]
    _tap: Tap

    async def __anext__(self) -> Batch:
        batch = await anext(self._batches)
        # A follower that is told late is all that can happen to a reading; it is no step of its own.
        if isinstance(self._tap, Shuffle):
            await self._tap.before("follow")
        return batch
