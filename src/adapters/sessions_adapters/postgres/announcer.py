"""Telling other processes what was committed here: one notification for many keys, every few milliseconds.

A notification inside the transaction that it is about would make all commits of the server that carry one wait for each
other. So news are told after the commit, on the side, gathered. One that is lost is found by the listeners' slow poll, so
nobody waits until one is on the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import attrs

from sessions_adapters.postgres.failures import FAILURES

LARGEST_PAYLOAD: Final = 7900
"""Bytes; the server takes less than 8000."""
_logger = logging.getLogger("sessions.postgres")
_logger.addHandler(logging.NullHandler())


def encode(sender: str, news: Mapping[bytes, int]) -> list[str]:
    """Return the payloads that say all *news*: ``sender key=number key=number …``."""
    return list(_payloads(sender, [f"{key.hex()}={number}" for key, number in news.items()]))


def _payloads(sender: str, items: list[str]) -> Iterator[str]:
    payload = sender
    for item in items:
        if len(payload) + 1 + len(item) > LARGEST_PAYLOAD:
            yield payload
            payload = sender
        payload += f" {item}"
    yield payload


def decode(payload: str) -> dict[bytes, int]:
    """Return the news of a payload.

    Raises:
        ValueError: Not one that :func:`encode` has made.
    """
    _, *items = payload.split(" ")
    news = {}
    for item in items:
        key, _, number = item.partition("=")
        news[bytes.fromhex(key)] = int(number)
    return news


@attrs.define(eq=False)
class Announcer:
    """Gathers news and tells them."""

    _notify: Callable[[list[str]], Awaitable[None]]
    _sender: str
    _interval: float
    _news: dict[bytes, int] = attrs.field(init=False, factory=dict)
    _bell: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)

    def announce(self, key: bytes, number: int) -> None:
        """Let the other processes know soon that *key* has come to *number*."""
        self._news[key] = max(number, self._news.get(key, number))
        self._bell.set()

    async def run(self) -> None:
        """Tell news for ever."""
        while True:
            await self._bell.wait()
            await asyncio.sleep(0)  # those who have committed are answered first
            await self.tell()
            await asyncio.sleep(self._interval)

    async def tell(self) -> None:
        """Tell what has been gathered. If that fails, the listeners' poll has to do."""
        self._bell.clear()
        news, self._news = self._news, {}
        if not news:
            return
        try:
            await self._notify(encode(self._sender, news))
        except FAILURES:
            _logger.warning("news could not be told; other processes will find them by themselves", exc_info=True)
