"""Rows that break a rule of this version of the software, be they damaged or another version's.

Such a row must not stop what is done for all the others, and whoever asks for it has done nothing wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from functools import wraps
from typing import Any, Final, Protocol, TypeVar

import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.errors import StoreUnavailableError

_KNOWN_ROWS: Final = 10_000


class Row(Protocol):
    """What a driver returns: columns by name. Every row has an ``id``."""

    def __getitem__(self, column: str, /) -> Any: ...


T = TypeVar("T")
R = TypeVar("R", bound=Row)


def stored(convert: Callable[[R], T]) -> Callable[[R], T]:
    """Let *convert* raise StoreUnavailableError for whatever is wrong with a row."""

    @wraps(convert)
    def converted(row: R) -> T:
        try:
            return convert(row)
        except Exception as exc:
            raise StoreUnavailableError from exc

    return converted


@attrs.define(eq=False)
class UnreadableRows:
    """Skips rows that cannot be read, and logs each of them once."""

    _logger: logging.Logger
    _known: BoundedDict[str, None] = attrs.field(init=False, factory=lambda: BoundedDict(_KNOWN_ROWS))

    def skip(self, rows: Iterable[R], convert: Callable[[R], T]) -> Generator[T]:
        """Give what the :func:`stored` *convert* makes of *rows*, without those that it cannot convert."""
        for row in rows:
            try:
                yield convert(row)
            except StoreUnavailableError as error:
                self._report(row["id"], error)

    def _report(self, row: str, error: StoreUnavailableError) -> None:
        if row not in self._known:
            self._known[row] = None
            self._logger.error("a stored row cannot be read; lists leave it out", exc_info=error, extra={"row": row})
