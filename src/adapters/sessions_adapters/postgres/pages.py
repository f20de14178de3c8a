"""The first rows of many, although some of them cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import asyncpg
import attrs

from sessions_adapters.shared.unreadable import UnreadableRows

T = TypeVar("T")
Convert = Callable[[asyncpg.Record], T]
Fetch = Callable[[int], Awaitable[Sequence[asyncpg.Record]]]

_logger = logging.getLogger("sessions.postgres")
_logger.addHandler(logging.NullHandler())


@attrs.define(eq=False)
class Pages:
    """Reads the rows that can be read."""

    _unreadable: UnreadableRows = attrs.field(init=False, factory=lambda: UnreadableRows(_logger))

    async def first(self, limit: int, fetch: Fetch, convert: Convert[T]) -> list[T]:
        """Return the first *limit* rows that the stored *convert* can convert.

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
        return list(self._unreadable.skip(rows, convert))
