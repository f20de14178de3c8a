"""One line that says what is going on, and how far it is, for whoever watches a terminal."""

from __future__ import annotations

import time
from typing import Final, Self, TextIO

import attrs

_CLEAR: Final = "\r\x1b[K"
_WIDTH: Final = 24


@attrs.define(eq=False)
class Progress:
    """Rewrites one line of a terminal; says nothing to anything else.

    The whole is made of parts, which are given about the share of time that they take, and a part of equal steps.
    """

    _out: TextIO
    _whole: float = 1.0
    _before: float = attrs.field(init=False, default=0.0)
    _share: float = attrs.field(init=False, default=0.0)
    _steps: int = attrs.field(init=False, default=1)
    _taken: int = attrs.field(init=False, default=0)
    _started: float = attrs.field(init=False, factory=time.monotonic)

    @property
    def done(self) -> float:
        """How much of the whole is done, from 0 to 1."""
        return min(1.0, (self._before + self._share * min(self._taken / self._steps, 1.0)) / self._whole)

    def begin(self, share: float) -> None:
        """Begin the next part, which is *share* of the whole."""
        self._before += self._share
        self._share, self._steps, self._taken = share, 1, 0

    def expect(self, steps: int) -> None:
        """Say of how many steps this part consists."""
        self._steps = max(1, steps)

    def step(self, what: str) -> None:
        """Begin the next step: *what* is done now."""
        self.say(what)
        self._taken += 1

    def say(self, what: str) -> None:
        """Show *what* is being done."""
        if self._out.isatty():
            self._out.write(f"{_CLEAR}{self._bar()} {time.monotonic() - self._started:4.0f} s  {what}")
            self._out.flush()

    def _bar(self) -> str:
        full = round(self.done * _WIDTH)
        return f"[{'#' * full}{'.' * (_WIDTH - full)}] {self.done:4.0%}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._out.isatty():
            self._out.write(_CLEAR)
            self._out.flush()
