"""Servers with limits of their own, and what clients and ``/metrics`` see of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from harness.client import Client
from harness.in_process import Site
from sessions_core.domain.rate import Rate

READ: Final = "/api/v1/sessions/chat-1"
Opened = Callable[..., AbstractAsyncContextManager[Site]]
"""Opens a server with the given settings and without all other limits."""


def never_more(burst: int) -> Rate:
    """Return a rate that gives so many, and no more during a test."""
    return Rate(0.001, burst)


async def reads(client: Client, times: int) -> list[int]:
    """Read a session so often; return the statuses."""
    return [(await client.call("GET", READ)).status for _ in range(times)]


async def refused(site: Site, limit: str) -> float:
    """Return how often /metrics says that this limit refused somebody."""
    text = (await site.client().call("GET", "/metrics")).body
    lines = [
        line for line in text.splitlines() if line.startswith(f'sessions_requests_refused_total{{limit="{limit}"}}')
    ]
    return float(lines[0].split()[-1]) if lines else 0.0
