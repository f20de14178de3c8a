"""Room for connections: a process takes so many, and who is without a request makes place for a newcomer when it is full.

Otherwise silent connections, all of one machine if it likes, would keep everybody else out for as long as they may be silent.
Without a request are those that have not said yet what they speak, those that are in the middle of a head, and those that have
been answered. They stand in a line, in the order in which they came to be without one, and the first of it goes. So whoever
opens one connection after the other pushes out its own, and others' that have been idle for longer, which clients open again;
never a request, and no newcomer that says what it wants before so many have come after it as there are in the line.
"""

from __future__ import annotations

import fcntl
import struct
from abc import abstractmethod
from asyncio import Transport
from collections import OrderedDict
from typing import Final, Protocol

import attrs

_INT: Final = struct.Struct("i")
_SIOCOUTQNSD: Final = 0x894B
"""Asks how much of what was written has not been sent yet: ``linux/sockios.h``."""
MOST_LEAVING: Final = 100
"""So many are told at a time that they have to go; of more, the first are cut off."""


class Guest(Protocol):
    """A connection that may have to make place."""

    __slots__ = ()

    @abstractmethod
    def make_place(self) -> bool:
        """Close for the sake of another; return False, and stay, if what was answered last has not been taken.

        Asked of those that wait, and of nobody else. Who has closed counts no longer when this returns.
        """


class Leaver(Protocol):
    """A connection that has no place."""

    __slots__ = ()

    @abstractmethod
    def abort(self) -> None:
        """Close at once."""


@attrs.define(eq=False)
class Leaving:
    """The connections that have no place, or no longer one, until they have been told so."""

    _members: OrderedDict[Leaver, None] = attrs.field(init=False, factory=OrderedDict)

    def add(self, leaver: Leaver) -> None:
        """Take *leaver* in. One too many cuts off the first."""
        self._members[leaver] = None
        if len(self._members) > MOST_LEAVING:
            first, _ = self._members.popitem(last=False)
            first.abort()

    def discard(self, leaver: Leaver) -> None:
        """Forget *leaver*, which is gone."""
        self._members.pop(leaver, None)

    def abort(self) -> None:
        """Close all of them at once."""
        for leaver in list(self._members):
            leaver.abort()


@attrs.define(eq=False)
class Places:
    """The places of one process.

    Attributes:
        most: How many there are; None for any number.
        leaving: Those that are to go.
        made: How many connections have made place.
        refused: How many newcomers have found none.
    """

    most: int | None = None
    leaving: Leaving = attrs.field(init=False, factory=Leaving)
    made: int = attrs.field(init=False, default=0)
    refused: int = attrs.field(init=False, default=0)
    # Ordered by more than the order in which it was filled: the first of a plain dictionary is behind all that have left.
    _line: OrderedDict[Guest, None] = attrs.field(init=False, factory=OrderedDict)

    @property
    def waiting(self) -> int:
        """How many connections stand in the line."""
        return len(self._line)

    def wait(self, guest: Guest) -> None:
        """Put *guest*, which has no request under way, at the end of the line, unless it stands there already."""
        self._line[guest] = None

    def leave(self, guest: Guest) -> None:
        """Take *guest*, which has a request under way or is gone, out of the line."""
        self._line.pop(guest, None)

    def find(self, taken: int) -> bool:
        """Return whether there is a place for a newcomer, made by whoever has waited longest if all are *taken*.

        Who stays, because an answer is still on its way, has left the line; it waits again when that has been taken.
        """
        if self.most is None or taken < self.most:
            return True
        while self._line:
            guest, _ = self._line.popitem(last=False)
            if guest.make_place():
                self.made += 1
                return True
        self.refused += 1
        return False


def cut(wire: Transport, below: Transport | None) -> None:
    """Close *wire* at once, whatever has not been sent. Under TLS what is *below* can be closed in any case, the other not always."""
    (below or wire).abort()


def unsent(*wires: Transport | None) -> int:
    """Return how many bytes wait in *wires*; under TLS a transport does not know of those in the one below."""
    return sum(_unsent(wire) for wire in wires if wire is not None)


def is_delivered(wire: Transport, below: Transport | None) -> bool:
    """Tell whether all that was written is on its way. What the kernel still keeps, for want of room, would be lost in a reset."""
    if unsent(wire, below):
        return False
    raw = (below or wire).get_extra_info("socket")
    if raw is None:
        return True
    try:
        kept: int = _INT.unpack(fcntl.ioctl(raw.fileno(), _SIOCOUTQNSD, bytes(_INT.size)))[0]
    except OSError:  # only Linux tells
        return True
    return kept == 0


def _unsent(wire: Transport) -> int:
    try:
        return wire.get_write_buffer_size()
    except AttributeError:  # asyncio's transport for TLS has lost what it asks, having been closed by both sides
        return 0
