"""Rows that break a rule of this version of the software, be they damaged or another version's.

Such a row must not stop what is done for all the others, and whoever asks for it has done nothing wrong.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import wraps
from heapq import merge
from itertools import islice
from typing import Any, Final, TypeVar

import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.errors import StoreUnavailableError

T = TypeVar("T")
Convert = Callable[[sqlite3.Row], T]

_KNOWN_ROWS: Final = 10_000
_logger = logging.getLogger("sessions.sqlite")
_logger.addHandler(logging.NullHandler())


def stored(convert: Convert[T]) -> Convert[T]:
    """Let *convert* raise StoreUnavailableError for whatever is wrong with a row."""

    @wraps(convert)
    def converted(row: sqlite3.Row) -> T:
        try:
            return convert(row)
        except Exception as exc:
            raise StoreUnavailableError from exc

    return converted


@attrs.define(eq=False)
class UnreadableRows:
    """Skips rows that cannot be read, and logs each of them once."""

    _known: BoundedDict[str, None] = attrs.field(init=False, factory=lambda: BoundedDict(_KNOWN_ROWS))

    def read(self, rows: sqlite3.Cursor, convert: Convert[T], limit: int | None = None) -> list[T]:
        """Return the first *limit* of *rows*, which have an ``id``, that the :func:`stored` *convert* can convert.

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
            readable = stack.enter_context(closing(self._skip(rows, convert)))
            return list(islice(readable, limit))

    def _skip(self, rows: Iterable[sqlite3.Row], convert: Convert[T]) -> Generator[T]:
        for row in rows:
            try:
                yield convert(row)
            except StoreUnavailableError as error:
                self._report(row["id"], error)

    def _report(self, row: str, error: StoreUnavailableError) -> None:
        if row not in self._known:
            self._known[row] = None
            _logger.error("a stored row cannot be read; lists leave it out", exc_info=error, extra={"row": row})
