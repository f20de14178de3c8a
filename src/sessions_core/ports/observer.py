"""Port: who is told what happened."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from sessions_core.domain.events import Event


class Observer(Protocol):
    """Is handed frozen facts. Must be quick and must not raise."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, event: Event) -> None:
        """Take note of *event*."""
