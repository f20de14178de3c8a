"""Port: one leader per name."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import anyio


class LeaderLock(Protocol):
    """Elects at most one holder per name. Every effect of a leader is also guarded by a compare-and-set."""

    __slots__ = ()

    @abstractmethod
    def hold(self, name: str) -> AbstractAsyncContextManager[anyio.CancelScope]:
        """Wait for leadership of *name* and hold it inside the block.

        Run the leader's work inside the scope that is given: it is cancelled within the adapter's stated time when the
        leadership is lost.
        """
