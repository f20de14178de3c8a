"""Ports: time and fresh ids."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    __slots__ = ()

    @abstractmethod
    def now(self) -> datetime:
        """Return the current time with zone UTC."""


class Ids(Protocol):
    """Makes ids that nobody has used before."""

    __slots__ = ()

    @abstractmethod
    def new(self) -> str:
        """Return a fresh id of 25 characters ``[0-9a-z]``, roughly ordered by time and not guessable."""

    @abstractmethod
    def new_part(self) -> str:
        """Return a short random id for a record that got none from its writer; cheap."""
