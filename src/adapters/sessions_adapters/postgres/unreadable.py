"""Rows that break a rule of this version of the software, be they damaged or another version's.

Such a row must not stop what is done for all the others, and whoever asks for it has done nothing wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Final, TypeVar

import asyncpg
import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.errors import StoreUnavailableError

T = TypeVar("T")
Convert = Callable[[asyncpg.Record], T]
Fetch = Callable[[int], Awaitable[Sequence[asyncpg.Record]]]

_KNOWN_ROWS: Final = 10_000
_logger = logging.getLogger("sessions.postgres")
_logger.addHandler(logging.NullHandler())


def stored(convert: Convert[T]) -> Convert[T]:
    """Let *convert* raise StoreUnavailableError for whatever is wrong with a row."""

    @wraps(convert)
    def converted(row: asyncpg.Record) -> T:
        try:
            return convert(row)
        except Exception as exc:
            raise StoreUnavailableError from exc

    return converted


@attrs.define(eq=False)
class UnreadableRows:
    """Skips rows that cannot be read, and logs each of them once."""

    _known: BoundedDict[str, None] = attrs.field(init=False, factory=lambda: BoundedDict(_KNOWN_ROWS))

    async def first(self, limit: int, fetch: Fetch, convert: Convert[T]) -> list[T]:
        """Return the first *limit* rows that the :func:`stored` *convert* can convert.

        Args:
            limit: So many; more rows are asked for if unreadable ones are among them.
            fetch: Returns the first so many rows. They have an ``id``.
            convert: Makes something of a row.
        """
        asked = limit
        while True:
            rows = await fetch(asked)
            readable = self.readable(rows, convert)
            if len(readable) >= limit or len(rows) < asked:
                return readable[:limit]
            asked *= 2

    def readable(self, rows: Sequence[asyncpg.Record], convert: Convert[T]) -> list[T]:
        """Return what *convert* makes of *rows*, without those that it cannot convert."""
        found = []
        for row in rows:
            try:
                found.append(convert(row))
            except StoreUnavailableError as error:
                self._report(row["id"], error)
        return found

    def _report(self, row: str, error: StoreUnavailableError) -> None:
        if row not in self._known:
            self._known[row] = None
            _logger.error("a stored row cannot be read; lists leave it out", exc_info=error, extra={"row": row})
