"""What becomes of a newcomer: one that has a place is served, one that has none is told so."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import attrs

from sessions_server.connections.places import Guest, Leaver, Places

Make = Callable[[asyncio.Transport | None], asyncio.Protocol]
"""Makes what a connection is handed to; its argument is what carries it, if that is not its own transport: what is below TLS."""


class Newcomer(Guest, Leaver, Protocol):
    """A connection of which it is not clear yet what it speaks."""

    __slots__ = ()


class Home(Protocol):
    """Where a newcomer is found."""

    __slots__ = ()

    @abstractmethod
    def add(self, newcomer: Newcomer, /) -> None:
        """Take it in."""

    @abstractmethod
    def discard(self, newcomer: Newcomer, /) -> None:
        """Forget it, if it is there."""


@attrs.frozen(eq=False)
class Reception:
    """What is ready for a newcomer.

    Attributes:
        home: Where it is found until it is clear what it speaks.
        http1: Makes what it is handed to then.
        http2: The same, for the other version.
    """

    home: Home
    http1: Make
    http2: Make


Receive = Callable[[], Reception]


@attrs.define(eq=False)
class Undecided(Home):
    """The newcomers that have a place."""

    _places: Places
    _members: set[Newcomer] = attrs.field(init=False, factory=set)

    def __len__(self) -> int:
        return len(self._members)

    def add(self, newcomer: Newcomer, /) -> None:
        self._members.add(newcomer)
        self._places.wait(newcomer)

    def discard(self, newcomer: Newcomer, /) -> None:
        self._members.discard(newcomer)
        self._places.leave(newcomer)

    def abort(self) -> None:
        """Close all of them at once."""
        for newcomer in list(self._members):
            newcomer.abort()
