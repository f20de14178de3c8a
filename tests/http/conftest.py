"""The real server, once per profile."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from harness.backends import ALL
from harness.client import Client
from harness.in_process import Site, open_site
from harness.limits import Opened
from sessions_adapters.profiles import MEMORY, SCALE
from sessions_server.config import Config


@pytest.fixture(params=ALL)
def profile(request: pytest.FixtureRequest) -> str:
    """The choice of adapters under test."""
    name: str = request.param
    return name


@pytest.fixture
def first(profile: str) -> int:
    """The seq of a session's first record on ``in``. In S2 the guard that its first run has set takes one before it."""
    return int(profile == SCALE)


@pytest.fixture
async def site(profile: str, tmp_path: Path) -> AsyncGenerator[Site]:
    """A server on a free port; nobody carries out its runs, so they stay pending."""
    async with open_site(profile, tmp_path) as opened:
        yield opened


@pytest.fixture
def client(site: Site) -> Client:
    """A client with the root key."""
    return site.client()


@pytest.fixture
async def chat(client: Client) -> Client:
    """A client of a session that is there."""
    assert (await client.create("chat-1")).status == 201
    return client


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens a server with some settings and without all other limits."""

    def open_with(**settings: Any) -> AbstractAsyncContextManager[Site]:
        off: dict[str, Any] = {"environment_rate": None, "token_rate": None, "guess_rate": None}
        return open_site(MEMORY, tmp_path, Config(**{**off, **settings}))

    return open_with
