"""The server under measurement, and the sessions that are used. Nobody runs their task, so no agent is at work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import aiohttp
import attrs

from harness.client import Client
from harness.server import KEY, ServerProcess
from sessions_core.domain.ids import EnvironmentId
from sessions_server.tokens import peek_environment

TASK: Final = "bench"


@attrs.define(eq=False)
class Stage:
    """A server on data of its own.

    Attributes:
        tokens: The public token of every session that was created, by external id.
    """

    data: Path
    tokens: dict[str, str] = attrs.field(init=False, factory=dict)
    _server: ServerProcess | None = attrs.field(init=False, default=None)

    @property
    def port(self) -> int:
        """Where the server listens."""
        assert self._server is not None
        return self._server.port

    @property
    def environment_id(self) -> EnvironmentId:
        """The environment of the sessions."""
        return EnvironmentId(peek_environment(next(iter(self.tokens.values()))) or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server on the data that is there."""
        self._server = ServerProcess(self.data).start()

    def stop(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def create(self, names: Sequence[str]) -> None:
        """Create sessions."""
        asyncio.run(self._create(names))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Open a client that may do everything."""
        assert self._server is not None
        async with aiohttp.ClientSession() as http:
            yield Client(http, self._server.address, KEY)

    async def _create(self, names: Sequence[str]) -> None:
        async with self.client() as client:
            for name in names:
                answer = await client.create(name, TASK)
                if answer.status != 201:
                    raise RuntimeError(f"no session: {answer}")
                self.tokens[name] = answer.body["publicAccessToken"]
