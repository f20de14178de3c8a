"""Ports: durable waits, and the registry of who waits on a channel right now."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import attrs

from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import EnvironmentId, WaitpointId
from sessions_core.domain.waitpoint import Completion, Waitpoint


@attrs.frozen
class WaitpointCreation:
    """What create-or-get found."""

    waitpoint: Waitpoint
    is_cached: bool


class WaitpointStore(Protocol):
    """Keeps waitpoints: the truth about every wait, whoever created it and whether that process lives."""

    __slots__ = ()

    @abstractmethod
    async def create(self, waitpoint: Waitpoint) -> WaitpointCreation:
        """Store *waitpoint*, or get the one of this environment that has its unexpired idempotency key.

        An expired key is free again.
        """

    @abstractmethod
    async def find(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint | None:
        """Return the waitpoint, or None if this environment has no such one."""

    @abstractmethod
    async def complete(self, waitpoint_id: WaitpointId, completion: Completion) -> bool:
        """End a waiting waitpoint. Exactly one of concurrent calls gets True; later ones change nothing."""

    @abstractmethod
    async def wait(self, environment_id: EnvironmentId, waitpoint_id: WaitpointId) -> Waitpoint:
        """Return the waitpoint once it has ended; at once if it has. The caller limits the time by cancelling.

        No wake-up is lost between looking and waiting, also when another process completes it.

        Raises:
            WaitpointNotFoundError: No such waitpoint in this environment.
        """

    @abstractmethod
    async def list_waiting(self, after: WaitpointId | None, limit: int) -> list[Waitpoint]:
        """Return waiting waitpoints of all environments in the order of their ids, those after *after*."""

    @abstractmethod
    async def list_waiting_on(self, channel: Channel, limit: int) -> list[Waitpoint]:
        """Return waiting waitpoints of *channel* in the order of their ids, at most *limit*."""

    @abstractmethod
    async def list_due(self, limit: int) -> list[Waitpoint]:
        """Return waiting waitpoints whose ``expires_at`` has passed, by the store's time."""


class WaitRegistry(Protocol):
    """Which waitpoints an append on a channel has to wake. A hint for speed: the store is the truth.

    Losing an entry only delays a wake-up until the sweep compares the waitpoint with the channel's tail. So services use it
    through :class:`~sessions_core.services.tolerant_registry.TolerantWaitRegistry`; an adapter just says that it failed.

    Raises:
        UnavailableError: No answer in time, from any method. It may have had its effect.
    """

    __slots__ = ()

    @abstractmethod
    async def register(self, channel: Channel, waitpoint_id: WaitpointId, keep: timedelta) -> None:
        """Add a member and keep the channel's members for at least *keep*: a shorter wait never shortens a longer one."""

    @abstractmethod
    async def drain(self, channel: Channel) -> Sequence[WaitpointId]:
        """Take all members out. Atomic: of two racing calls only one gets a member."""

    @abstractmethod
    async def unregister(self, channel: Channel, waitpoint_id: WaitpointId) -> None:
        """Take one member out; a no-op if it is not there."""
