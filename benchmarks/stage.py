"""The server under measurement, and the sessions that are used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import attrs

from harness.backends import environment_of
from harness.client import Client
from harness.server import KEY, ServerProcess
from sessions_adapters.profiles import Backends
from sessions_core.domain.ids import EnvironmentId
from sessions_server.auth.tokens import peek_environment

NOBODYS_TASK: Final = "bench"
"""Nobody runs it, so no agent is at work."""
ECHO: Final = "echo"
AT_ONCE: Final = 64


@attrs.define(eq=False)
class Stage:
    """A server on data of its own.

    Attributes:
        backends: Its profile, and where the systems are.
        tokens: The public token of every session that was created, by external id.
    """

    backends: Backends
    tokens: dict[str, str] = attrs.field(init=False, factory=dict)
    _server: ServerProcess | None = attrs.field(init=False, default=None)

    @property
    def data(self) -> Path:
        """Its directory."""
        return self.backends.directory

    @property
    def port(self) -> int:
        """Where the server listens."""
        assert self._server is not None
        return self._server.port

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._server is not None
        return self._server.pid

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
        self._server = self.another().start()

    def another(self) -> ServerProcess:
        """Return a server on the same data, not started."""
        return ServerProcess(self.data, environment=environment_of(self.backends))

    def stop(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def restart(self) -> None:
        """Stop the server, if it runs, and start it again: nothing is remembered but what was stored."""
        self.stop()
        self.start()

    def create(self, names: Sequence[str], task: str = NOBODYS_TASK, **trigger: Any) -> None:
        """Create sessions; *trigger* are members of their trigger config."""
        asyncio.run(self._create(names, task, {"basePayload": {}, **trigger}))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Open a client that may do everything."""
        assert self._server is not None
        async with aiohttp.ClientSession() as http:
            yield Client(http, self._server.address, KEY)

    async def _create(self, names: Sequence[str], task: str, trigger: dict[str, Any]) -> None:
        async with self.client() as client:
            for start in range(0, len(names), AT_ONCE):
                group = names[start : start + AT_ONCE]
                answers = await asyncio.gather(*(client.create(name, task, triggerConfig=trigger) for name in group))
                for name, answer in zip(group, answers, strict=True):
                    if answer.status != 201:
                        raise RuntimeError(f"no session: {answer}")
                    self.tokens[name] = answer.body["publicAccessToken"]
