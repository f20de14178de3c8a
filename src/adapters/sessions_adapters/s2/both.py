"""Two requests side by side."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import anyio

from sessions_core.confining import confined
from sessions_core.unwrapping import leaves

T = TypeVar("T")
U = TypeVar("U")


async def both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Await both at once; if one fails, the other is cancelled and the first failure raised.

    ``asyncio.gather`` would do, if it did not let out a cancellation that the scope which has asked for it does not know again.

    Raises:
        StrayCancellationError: The driver has cancelled one of them by itself.
    """
    found: list[T] = []

    async def await_first() -> None:
        found.append(await confined(first))

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(await_first)
            other = await confined(second)
    except BaseExceptionGroup as group:
        error = next(leaves(group))
        raise error from error.__cause__
    return found[0], other
