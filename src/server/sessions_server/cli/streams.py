"""The standard streams of this process, which may be closed, full, or a pipe whose reader has gone.

Nothing here imports anything that takes time: it comes before everything else.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


def prepare() -> None:
    """Make the streams fit for whatever is written to them. What is said on a closed standard error is lost."""
    _take_the_numbers_of_closed_streams()
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def tell(text: str) -> None:
    """Say on standard error what went wrong, on one line; that it cannot be written changes nothing."""
    from sessions_server.cli.text import one_line

    with suppress(OSError):
        print(f"sessions: {one_line(text)}", file=sys.stderr, flush=True)


def settle() -> None:
    """Write what is left, or give it up, so that the interpreter does not fail at it when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _let_go(stream)


def _let_go(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _take_the_numbers_of_closed_streams() -> None:
    """Keep 0, 1 and 2 from becoming a socket or a database, into which somebody who takes it for a stream would write."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
