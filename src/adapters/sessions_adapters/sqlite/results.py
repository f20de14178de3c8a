"""The first rows of a statement's result, although some of them cannot be read."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

import attrs

from sessions_adapters.shared.unreadable import UnreadableRows

T = TypeVar("T")
Convert = Callable[[sqlite3.Row], T]

_logger = logging.getLogger("sessions.sqlite")
_logger.addHandler(logging.NullHandler())


@attrs.define(eq=False)
class Results:
    """Reads the rows that can be read."""

    _unreadable: UnreadableRows = attrs.field(init=False, factory=lambda: UnreadableRows(_logger))

    def read(self, rows: sqlite3.Cursor, convert: Convert[T], limit: int | None = None) -> list[T]:
        """Return the first *limit* of *rows*, which have an ``id``, that the stored *convert* can convert.

        The limit stands here and not in the statement, so that unreadable rows cannot hide all others.
        """
        return self.merge((rows,), convert, limit)

    def merge(
        self,
        cursors: Sequence[sqlite3.Cursor],
        convert: Convert[T],
        limit: int | None = None,
        *,
        key: Callable[[sqlite3.Row], Any] | None = None,
    ) -> list[T]:
        """Do the same with several results, each in the order of *key*."""
        # Closed by name: a logged error keeps frames alive, and with them an open result and its view of the past.
        with ExitStack() as stack:
            for cursor in cursors:
                stack.callback(cursor.close)
            rows = stack.enter_context(closing(merge(*cursors, key=key)))
            readable = stack.enter_context(closing(self._unreadable.skip(rows, convert)))
            return list(islice(readable, limit))
