"""Nothing that a server writes or shows holds a secret: logs of every level, metrics, errors, titles of processes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
import pytest
from aiohttp import ClientSession, ClientTimeout

from harness import http2
from harness.backends import environment_of, opened_backends
from harness.client import Client, is_control
from harness.secrets import Secrets, processes_of, shown_by_ps
from harness.server import ServerProcess
from sessions_adapters.fernet import FernetCipher
from sessions_adapters.profiles import EMBEDDED, MEMORY, POSTGRES, Backends, open_environments, open_sessions
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.events import Event
from sessions_core.domain.ids import EnvironmentId
from sessions_core.ports.observer import Observer
from sessions_server.app import HttpServer, build_server
from sessions_server.auth.tokens import SignedSessionTokens
from sessions_server.bundled import agents
from sessions_server.config import Config

ROOT_KEY = "tr_dev_" + "RooTkEy1" * 3
NARROW_KEY = "tr_dev_sk_" + "nArRow42" * 3
REVOKED_KEY = "tr_dev_sk_" + "rEvOkEd7" * 3
AGENTS = """
from sessions_core.chat import Agents, Run

agents = Agents()

@agents.task("echo")
async def echo(run: Run) -> None:
    async for turn in run.turns():
        async with turn:
            await turn.text("you said: " + (turn.text_input or ""))

@agents.task("failing")
async def failing(run: Run) -> None:
    async for turn in run.turns():
        async with turn:
            raise RuntimeError(f"cannot answer {turn!r} of {run!r}: {vars(run) if hasattr(run, '__dict__') else dir(run)}")

@agents.task("dying")
async def dying(run: Run) -> None:
    raise ValueError(f"never begins {run!r}")
"""


class QuietServer(ServerProcess):
    """A server that is told no secret by its command line."""

    def command(self) -> list[str]:
        command = super().command()
        return command[: command.index("--dev-key")]


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


@pytest.fixture(params=[EMBEDDED, pytest.param(POSTGRES, marks=pytest.mark.needs_postgres)])
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server(profile: str, tmp_path: Path, secrets: Secrets) -> AsyncGenerator[ServerProcess]:
    """A server that logs all it can, in its second life: in the first it has shown the key that it was given, once."""
    (tmp_path / "leaky_agents.py").write_text(AGENTS)
    with opened_backends(profile, tmp_path / "data") as empty:
        key = secrets.add("encryption key", FernetCipher.generate_key().decode())
        backends = attrs.evolve(empty, encryption_key=key)
        secrets.add("root key", ROOT_KEY)
        given = {
            **environment_of(backends),
            "SESSIONS_DEV_KEY": ROOT_KEY,
            "SESSIONS_LOG_LEVEL": "DEBUG",
            "SESSIONS_LOG_JSON": "1",
            "SESSIONS_ACCESS_LOG": "1",
            "SESSIONS_PROCESSES": "2" if profile == POSTGRES else "1",
            "PYTHONPATH": str(tmp_path),
        }
        process = QuietServer(backends.directory, agents="leaky_agents:agents", environment=given)
        await asyncio.to_thread(process.start)
        try:
            assert await asyncio.to_thread(process.stop) == 0
            process.output.clear()
            await add_keys(backends, secrets)
            await asyncio.to_thread(process.start)
            yield process
        finally:
            await asyncio.to_thread(process.__exit__)


async def add_keys(backends: Backends, secrets: Secrets) -> None:
    async with open_environments(backends) as store:
        [environment] = await store.list_all()
        await store.add_key(environment.id, secrets.add("additional key", NARROW_KEY), ["read:sessions"])
        revoked = await store.add_key(environment.id, secrets.add("revoked key", REVOKED_KEY), ["admin"])
        await store.revoke_key(environment.id, revoked.id)


@asynccontextmanager
async def client_of(server: ServerProcess) -> AsyncGenerator[Client]:
    async with ClientSession(timeout=ClientTimeout(total=60)) as http:
        yield Client(http, server.address, ROOT_KEY)


async def use_well(client: Client, secrets: Secrets) -> str:
    """Make the requests that give secrets away on purpose, remember these, and use them; return what else was answered."""
    created = (await client.create("chat-1")).body
    secrets.add("session token", created.pop("publicAccessToken"))
    wish = {"scopes": ["write:sessions:chat-1"], "oneTimeUse": True}
    for name in ("one-time token", "used token"):
        minted = await client.call("POST", "/api/v1/auth/public-tokens", wish)
        secrets.add(name, minted.body["token"])
    direct = await client.call("PUT", "/realtime/v1/sessions/chat-1/out")
    assert direct.status == 202
    secrets.add("direct token", direct.headers["X-S2-Access-Token"])
    answers = [created, (await client.call("POST", "/api/v1/auth/jwt/claims")).body]
    for number, name in enumerate(("session token", "additional key", "used token", "used token", "revoked key")):
        holder = Client(client.http, client.address, secrets.known[name])
        answers.append((await holder.append("chat-1", json.dumps({"number": number}))).body)
        answers.append((await holder.call("GET", "/api/v1/sessions?page%5Bsize%5D=5")).body)
    return json.dumps(answers)


async def misuse(client: Client, secrets: Secrets) -> str:
    """Show every secret to every kind of broken request where a credential belongs; return what was answered."""
    answers: list[Any] = []
    for value in secrets.known.values():
        holder = Client(client.http, client.address, value)
        for method, path, body in (
            ("GET", "/api/v1/nowhere", None),
            ("DELETE", "/api/v1/sessions", None),
            ("GET", "/api/v1/sessions/no-such", None),
            ("POST", "/api/v1/sessions", "{"),
            ("POST", "/api/v1/sessions", {"type": 5}),
            ("POST", "/realtime/v1/sessions/chat-1/sideways/append", "x"),
            ("POST", "/realtime/v1/sessions/chat-1/out/append", "x" * 1_048_500),
            ("PATCH", "/api/v1/sessions/chat-1", {"externalId": "other"}),
            ("POST", "/api/v1/auth/public-tokens", {"scopes": ["admin"], "expirationTime": "soon"}),
            ("GET", f"/v1/streams/{quote('sessions/chat-1/out', safe='')}/records", None),
        ):
            answer = await holder.call(method, path, body)
            answers.append([answer.body, dict(answer.headers)])
        answers.append(await send_broken(urlsplit(client.address).port or 0, value))
    return json.dumps(answers)


async def send_broken(port: int, value: str) -> list[str]:
    """Show *value* in what is no HTTP/1.1 and in HTTP/2, well and badly formed."""
    answers = []
    for request in (
        f"GET / HTTP/1.1\r\nAuthorization: Bearer {value}\r\nbroken line\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization: Bearer {value}\x00\r\n\r\n",
        f"POST / HTTP/1.1\r\nAuthorization: Bearer {value}{'x' * 9000}\r\n\r\n",
        f"POST /api/v1/sessions HTTP/1.1\r\nAuthorization: Bearer {value}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        f"{value}\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.encode())
        writer.write_eof()
        answers.append((await asyncio.wait_for(reader.read(), 30)).decode(errors="replace"))
        writer.close()
    async with http2.connect(port) as connection:
        for headers in ([("authorization", f"Bearer {value}")], [("authorization", f"Bearer {value}"), ("x", "y\x00")]):
            try:
                answers.append(str(await connection.call("GET", "/api/v1/sessions", headers=headers)))
            except (http2.ResetError, TimeoutError) as refusal:
                answers.append(str(refusal))
                break
    return answers


async def let_agents_fail(client: Client) -> str:
    """Have runs whose agents fail in a turn and before it; return what clients see of that."""
    seen = []
    for task in ("failing", "dying"):
        await client.create(task, task=task)
        await client.say(task, "hello")
        deadline = time.monotonic() + 60
        while not (records := [one for one in await client.records(task, "out") if "hello" not in str(one)]):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        seen.append(records)
    for record in seen[0]:
        record["headers"] = [header for header in record.get("headers", []) if header[0] != "public-access-token"]
    return json.dumps(seen)


@attrs.define
class Noting(Observer):
    """Notes every fact, as the most talkative observer would show it: whatever logs, metrics and traces are made of."""

    told: list[str] = attrs.field(factory=list)

    def __call__(self, event: Event) -> None:
        self.told.append(repr(event))


@asynccontextmanager
async def served_here(noting: Noting, secrets: Secrets) -> AsyncGenerator[HttpServer]:
    """Serve in this process, with every key there is."""
    tokens = SignedSessionTokens(timedelta(hours=1))
    async with open_sessions(MEMORY, observer=noting, agents=agents, session_tokens=tokens) as sessions:
        store, environment = sessions.environments, EnvironmentId("env_one")
        development = Environment(id=environment, type=EnvironmentType.DEVELOPMENT)
        await store.create(development, secrets.add("root key", ROOT_KEY))
        await store.add_key(environment, secrets.add("additional key", NARROW_KEY), ["read:sessions"])
        await store.add_key(environment, secrets.add("revoked key", REVOKED_KEY), ["admin"])
        server = build_server(sessions, Config())
        await server.listen("127.0.0.1", 0)
        try:
            yield server
        finally:
            await server.close()


async def test_no_secret_is_in_what_observers_are_told_or_in_how_a_server_shows_itself(secrets: Secrets) -> None:
    noting = Noting()
    async with served_here(noting, secrets) as server, ClientSession() as http:
        client = Client(http, server.address, ROOT_KEY)
        await use_well(client, secrets)
        holder = Client(http, server.address, secrets.known["session token"])
        async with holder.subscribe("chat-1", window=10) as (_, events):
            await client.say("chat-1", "hello")
            async for frame in events:
                if any(is_control(record, "turn-complete") for record in frame.records):
                    break
            shown = {"server that streams": repr(server)}
        await misuse(client, secrets)
        shown["server"] = repr(server)
    shown["facts"] = "\n".join(noting.told)
    assert {"RunBegun", "RecordsAppended"} <= {told.partition("(")[0] for told in noting.told}
    assert {place: found for place, text in shown.items() if (found := secrets.found_in(text))} == {}


async def test_no_secret_is_in_any_answer_log_metric_or_title(server: ServerProcess, secrets: Secrets) -> None:
    async with client_of(server) as client:
        shown = {
            "answers": await use_well(client, secrets),
            "refusals": await misuse(client, secrets),
            "failures": await let_agents_fail(client),
        }
        for path in ("/metrics", "/openapi.json", "/healthz", "/readyz", "/"):
            shown[path] = str((await client.call("GET", path)).body)
        shown["ps"] = "\n".join(map(shown_by_ps, processes_of(server.pid)))
    assert await asyncio.to_thread(server.stop) == 0
    shown["log"] = "\n".join(server.output)
    for word in ("sessions.access", "cannot answer", "never begins"):  # the access log, and what agents fail with
        assert word in shown["log"]
    assert {place: found for place, text in shown.items() if (found := secrets.found_in(text))} == {}
