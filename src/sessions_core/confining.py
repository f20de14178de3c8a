"""Cancellations that are nobody's here.

How this works
--------------
A cancel scope knows its own cancellations by a mark that they carry. Drivers and asyncio may let out others, and under load they
do: ``asyncio.gather`` over requests of a driver, for one. A task group takes such a one for the end of its task, cancels all
others and leaves without an error: the whole process would stop for one run, and call it success.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from sessions_core.errors import StrayCancellationError

T = TypeVar("T")


async def confined(work: Awaitable[T]) -> T:
    """Await *work*, out of which only the cancellations of the scopes around it come.

    Raises:
        StrayCancellationError: *work* was cancelled by something inside it.
    """
    try:
        return await work
    except anyio.get_cancelled_exc_class() as error:
        await checkpoint_if_cancelled()  # with the mark, if it is theirs
        raise StrayCancellationError from error
