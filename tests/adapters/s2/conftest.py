"""Logs over real servers, straight and through a proxy that spoils answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from harness.s2 import S2, new_basin
from harness.s2_proxy import Proxy, open_proxy
from sessions_adapters.s2 import S2Basin, S2ChannelLog, S2Config, open_basin

TIMEOUT = timedelta(milliseconds=400)


def config(endpoint: str | None = None, **options: Any) -> S2Config:
    """Make options for a server here; each call means another basin, if none is named."""
    chosen: dict[str, Any] = {"basin": new_basin(), "timeout": TIMEOUT, "patience": timedelta(seconds=20), **options}
    return S2Config(endpoint=endpoint or S2.get(), **chosen)


@pytest.fixture
def options() -> S2Config:
    return config()


@pytest.fixture
async def basin(options: S2Config) -> AsyncIterator[S2Basin]:
    async with open_basin(options) as basin:
        yield basin


@pytest.fixture
def log(basin: S2Basin) -> S2ChannelLog:
    return S2ChannelLog(basin)


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with open_proxy(S2.get()) as proxy:
        yield proxy


@pytest.fixture
async def spoilt(proxy: Proxy, options: S2Config, log: S2ChannelLog) -> AsyncIterator[S2ChannelLog]:
    """A log over the same basin as ``log``, behind the proxy."""
    del log  # makes the basin
    async with open_basin(config(proxy.endpoint, basin=options.basin)) as basin:
        yield S2ChannelLog(basin)
