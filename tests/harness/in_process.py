"""The real server in the test's own process and event loop, and requests made of odd bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from aiohttp import ClientSession

from harness.backends import open_backends
from harness.client import Client
from sessions_adapters.profiles import Backends, open_sessions
from sessions_core.agents import Agents
from sessions_core.domain.access import session_scopes
from sessions_core.domain.environment import Environment, EnvironmentType, RootKey
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId
from sessions_core.facade import Sessions, Settings
from sessions_server.app import HttpServer, build_server
from sessions_server.auth import tokens
from sessions_server.config import Config
from sessions_server.observability.metrics import Metrics

ENVIRONMENT: Final = EnvironmentId("env_one")
OTHER_ENVIRONMENT: Final = EnvironmentId("env_two")
ROOT_KEY: Final = "tr_dev_" + "a" * 24
OTHER_KEY: Final = "tr_dev_" + "b" * 24


@attrs.frozen
class RawAnswer:
    """What came back over a bare socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@attrs.define(eq=False)
class Site:
    """A server on a free port, with two environments."""

    server: HttpServer
    sessions: Sessions
    http: ClientSession

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.server.address

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.address.rsplit(":", 1)[1])

    def client(self, credential: str = ROOT_KEY) -> Client:
        """Return a client with *credential*."""
        return Client(self.http, self.address, credential)

    def sign(self, scopes: Sequence[str], *, seconds: int = 600, key: str = ROOT_KEY, **claims: Any) -> str:
        """Return a public token as a holder of the root key signs it."""
        now = int(self.sessions.clock.now().timestamp())
        content = {"sub": ENVIRONMENT, "pub": True, "scopes": list(scopes), "iat": now, "exp": now + seconds, **claims}
        return tokens.sign(content, RootKey(value=key))

    async def raw(self, request: bytes) -> RawAnswer:
        """Send *request* as it is and read the answer until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return RawAnswer(int(first.split()[1]), {name.lower(): value for name, value in pairs}, body)

    async def raw_call(
        self, method: str, target: str, body: bytes = b"", *, credential: str = ROOT_KEY, headers: Sequence[str] = ()
    ) -> RawAnswer:
        """Make a request whose target is sent exactly as given."""
        lines = [
            f"{method} {target} HTTP/1.1",
            "Host: test",
            f"Authorization: Bearer {credential}",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *headers,
        ]
        return await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def count_sessions(self) -> int:
        """Return how many sessions the first environment has."""
        answer = await self.client().call("GET", "/api/v1/sessions?page%5Bsize%5D=100")
        return len(answer.body["data"])


def session_token(site: Site, name: str, **more: Any) -> str:
    """Return a token as the creator of session *name* gets it."""
    return site.sign(session_scopes(name), **more)


async def until_the_next_second(site: Site) -> None:
    """Wait until a token that is signed is another one: its times are whole seconds."""
    second = site.sessions.clock.now().replace(microsecond=0)
    while site.sessions.clock.now().replace(microsecond=0) == second:
        await asyncio.sleep(0.05)


@asynccontextmanager
async def open_site(
    profile: str,
    data: Path,
    config: Config | None = None,
    agents: Agents | None = None,
    settings: Settings | None = None,
) -> AsyncGenerator[Site]:
    """Serve *profile*, and carry out the runs of *agents*, until the block ends."""
    async with open_backends(profile, data) as backends, open_site_on(backends, config, agents, settings) as site:
        yield site


@asynccontextmanager
async def open_site_on(
    backends: Backends,
    config: Config | None = None,
    agents: Agents | None = None,
    settings: Settings | None = None,
) -> AsyncGenerator[Site]:
    """Do the same with *backends*."""
    # Tests show bad credentials as often as they like, all from one address.
    config, metrics = config or Config(guess_rate=None), Metrics()
    session_tokens = tokens.SignedSessionTokens(config.session_token_lifetime)
    async with (
        open_sessions(
            backends, observer=metrics, agents=agents, settings=settings, session_tokens=session_tokens
        ) as sessions,
        ClientSession() as http,
    ):
        for environment_id, key in ((ENVIRONMENT, ROOT_KEY), (OTHER_ENVIRONMENT, OTHER_KEY)):
            await sessions.environments.create(_environment(environment_id), key)
        server = build_server(sessions, config, metrics=metrics)
        try:
            await server.listen("127.0.0.1", 0)
            yield Site(server, sessions, http)
        finally:
            await server.close()


def _environment(environment_id: EnvironmentId) -> Environment:
    return Environment(
        id=environment_id,
        organization_id=OrganizationId("org_one"),
        project_id=ProjectId("project_one"),
        type=EnvironmentType.DEVELOPMENT,
    )
