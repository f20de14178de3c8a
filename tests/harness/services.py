"""Real systems for tests: each is started when the first test needs it, and ended with the run.

A test says what it needs with a marker (``needs_redis`` …). Where a system cannot be started, the test is skipped with the
reason; where ``SESSIONS_REQUIRE_SERVICES=1`` says that nothing may be missing, it fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Final, Generic, TypeVar

import attrs
import pytest

T = TypeVar("T")

REQUIRED: Final = "SESSIONS_REQUIRE_SERVICES"
RUN: Final = ExitStack()
"""What ends with the run; ``tests/conftest.py`` closes it."""


@attrs.define(eq=False)
class CannotStartError(Exception):
    """A system that is not there and cannot be started."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@attrs.define(eq=False)
class Service(Generic[T]):
    """A system that the whole run shares."""

    open: Callable[[], AbstractContextManager[T]]
    _opened: T | None = attrs.field(init=False, default=None)
    _failure: CannotStartError | None = attrs.field(init=False, default=None)

    def get(self) -> T:
        """Return it, started.

        Raises:
            CannotStartError: Now, or when it was tried first.
        """
        if self._opened is None and self._failure is None:
            try:
                self._opened = RUN.enter_context(self.open())
            except CannotStartError as error:
                self._failure = error
        if self._failure is not None:
            raise self._failure
        assert self._opened is not None
        return self._opened


def ensure(service: Service[T]) -> None:
    """Skip the test if *service* cannot be had; fail it where all services are required."""
    try:
        service.get()
    except CannotStartError as error:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, but {error}", pytrace=False)
        pytest.skip(str(error))
