"""The guard: what an append must believe in to be taken.

How this works
--------------
Every channel has one guard beside its tail. An append names the guard it believes in and is refused if the
channel has another one, so a writer that has been overtaken learns it from the log itself, however stale its
caches are. Guards only ever rise::

    idle 0  <  live 1  <  idle 1  <  live 2  <  …  <  sealed

On ``in`` the number is the version of the session's current run: ``live n`` means that the run claimed under
version *n* is going to read what is appended; ``idle n`` means that it has left, and whoever wants to append must
ensure another run first. On ``out`` the number is the epoch, one attempt's right to write; ``idle`` is only the state
before the first attempt. ``sealed`` is final on both.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

import attrs

_TEXT: Final = re.compile(r"(idle|live|sealed):(\d{1,12})")


class GuardState(IntEnum):
    """Order within one number."""

    LIVE = 0
    IDLE = 1
    SEALED = 2


@attrs.frozen
class Guard:
    """A guard value. Compare with :meth:`rises_to`; text form is at most 19 bytes (S2 allows 36)."""

    state: GuardState
    number: int = attrs.field(validator=attrs.validators.ge(0))

    @classmethod
    def live(cls, number: int) -> Guard:
        """Return the guard under which run version or epoch *number* works."""
        return cls(GuardState.LIVE, number)

    @classmethod
    def idle(cls, number: int) -> Guard:
        """Return the guard that says run version *number* has left."""
        return cls(GuardState.IDLE, number)

    @classmethod
    def parse(cls, text: str) -> Guard:
        """Read the text form. The empty text is the guard of a channel that nobody has touched."""
        if not text:
            return UNTOUCHED
        match = _TEXT.fullmatch(text)
        if match is None:
            message = f"not a guard: {text!r}"
            raise ValueError(message)
        return cls(GuardState[match[1].upper()], int(match[2]))

    def __str__(self) -> str:
        return f"{self.state.name.lower()}:{self.number}"

    @property
    def is_live(self) -> bool:
        """Tell whether a run holds the channel."""
        return self.state is GuardState.LIVE

    @property
    def is_sealed(self) -> bool:
        """Tell whether the channel takes no record any more."""
        return self.state is GuardState.SEALED

    def rises_to(self, new: Guard) -> bool:
        """Tell whether a channel guarded by this may be guarded by *new*: strictly later, and never after sealed."""
        return self._rank < new._rank

    @property
    def _rank(self) -> tuple[bool, int, GuardState]:
        return (self.is_sealed, 0 if self.is_sealed else self.number, self.state)


UNTOUCHED: Final = Guard(GuardState.IDLE, 0)
SEALED: Final = Guard(GuardState.SEALED, 0)


@attrs.frozen(kw_only=True)
class GuardChange:
    """The answer to a compare-and-set of a guard.

    Attributes:
        done: Whether the guard was changed.
        actual: The guard after the call.
        tail: The seq the next record will get, at the time of the call.
    """

    done: bool
    actual: Guard
    tail: int
