"""Where a command writes: results on standard output; on a terminal also how it is getting on."""

from __future__ import annotations

import asyncio
import select
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final, TextIO

import attrs

from sessions_server.cli.text import Style, one_line, to_json
from sessions_server.config import is_dumb, wants_plain_text

PATIENCE: Final = 2.0
"""Seconds of silence after which a terminal is told what is being waited for."""
_STEP: Final = 0.5
_CLEAR: Final = "\r\x1b[K"


@attrs.define(eq=False)
class Terminal:
    """The two output streams of a command.

    Attributes:
        style: How results are emphasised.
        is_screen: Whether results go to a terminal.
        is_live: Whether a person watches, who wants to know what is going on.
    """

    style: Style
    is_screen: bool
    is_live: bool
    _out: TextIO
    _err: TextIO
    _at_line_start: bool = attrs.field(init=False, default=True)
    _status: bool = attrs.field(init=False, default=False)
    _last: float = attrs.field(init=False, factory=monotonic)

    @classmethod
    def of_process(cls) -> Terminal:
        """Return the terminal, or what stands in for it, of this process."""
        out, err = sys.stdout, sys.stderr
        is_screen = out.isatty()
        return cls(Style(is_screen and not wants_plain_text()), is_screen, err.isatty() and not is_dumb(), out, err)

    def write(self, text: str) -> None:
        """Write a part of the result, at once.

        Raises:
            BrokenPipeError: Whoever read it has gone.
            OSError: It cannot be written, as to a full disk.
        """
        if not text:
            return
        self._clear()
        self._out.write(text)
        self._out.flush()
        self._at_line_start = text.endswith("\n")
        self._last = monotonic()

    def write_json(self, value: Any, *, indent: int | None = None) -> None:
        """Write a part of the result as one JSON value and a newline."""
        self.write(to_json(value, indent=indent) + "\n")

    def note(self, text: str) -> None:
        """Tell a person who watches what has happened. Nobody else sees it."""
        if self.is_live:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Tell on standard error what everybody ought to know."""
        self._clear()
        self.end_line()
        self._tell(f"sessions: {one_line(text)}\n")

    def end_line(self) -> None:
        """Go to the beginning of a line of the terminal, as far as the result leaves it in the middle of one."""
        if self.is_screen and not self._at_line_start:
            self.write("\n")

    def is_abandoned(self) -> bool:
        """Tell whether standard output is a pipe whose reader has gone, which otherwise only the next write would tell."""
        with suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(self._out.fileno(), 0)
            return any(event & select.POLLERR for _, event in poll.poll(0))
        return False

    @asynccontextmanager
    async def waiting_for(self, what: str) -> AsyncGenerator[None]:
        """Show *what* and for how long inside the block, whenever nothing has been written for two seconds."""
        if not self.is_live:
            yield
            return
        self._last = monotonic()
        ticking = asyncio.create_task(self._tick(what))
        try:
            yield
        finally:
            ticking.cancel()
            self._clear()

    async def _tick(self, what: str) -> None:
        while True:
            await asyncio.sleep(_STEP)
            silence = monotonic() - self._last
            if silence >= PATIENCE and (self._at_line_start or not self.is_screen):
                self._show(f"{what} … {silence:.0f} s")

    def _show(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._tell(_CLEAR + one_line(text)[:width])
        self._status = True

    def _clear(self) -> None:
        if self._status:
            self._tell(_CLEAR)
            self._status = False

    def _tell(self, text: str) -> None:
        with suppress(OSError):  # What cannot be told changes nothing.
            self._err.write(text)
            self._err.flush()
