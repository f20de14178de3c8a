"""The driver's exceptions, and what callers get instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import psycopg_pool
from procrastinate.exceptions import ConnectorException

from sessions_core.errors import DispatcherUnavailableError

FAILURES: Final = (ConnectorException, psycopg.Error, psycopg_pool.PoolTimeout, OSError, TimeoutError)
"""Whatever the driver may raise."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise :class:`DispatcherUnavailableError` instead of the driver's errors."""
    try:
        yield
    except FAILURES as exc:
        raise DispatcherUnavailableError from exc
