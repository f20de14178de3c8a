"""One line that says what is going on, for whoever watches a terminal."""

from __future__ import annotations

import time
from typing import Self, TextIO

import attrs

_CLEAR = "\r\x1b[K"


@attrs.define(eq=False)
class Progress:
    """Rewrites one line of a terminal; says nothing to anything else."""

    _out: TextIO
    _started: float = attrs.field(init=False, factory=time.monotonic)

    def say(self, what: str) -> None:
        """Show *what* is being done."""
        if self._out.isatty():
            self._out.write(f"{_CLEAR}{time.monotonic() - self._started:4.0f} s  {what}")
            self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._out.isatty():
            self._out.write(_CLEAR)
            self._out.flush()
