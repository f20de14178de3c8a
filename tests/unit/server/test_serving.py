"""The end of a server process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sessions_adapters.profiles import open_sessions
from sessions_core.facade import Sessions
from sessions_server.cli import serving
from sessions_server.cli.loading import load_agents
from sessions_server.config import Config


async def test_a_server_that_is_cancelled_from_within_does_not_call_that_a_clean_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def ending_by_itself(*given: Any, **named: Any) -> AsyncIterator[Sessions]:
        with anyio.CancelScope() as scope:
            async with open_sessions(*given, **named) as sessions:
                scope.cancel()
                yield sessions

    monkeypatch.setattr(serving, "open_sessions", ending_by_itself)
    config = Config(profile="memory", port=0, data=tmp_path)
    agents = load_agents(config.agents)
    with pytest.raises(serving.UnaskedEndError):
        await serving._serve(config, agents, as_json=True, share=None)
