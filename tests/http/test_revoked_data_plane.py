"""Long answers of the data plane end when what opened them is taken back or over, although nothing comes and nothing goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import quote

import attrs
import pytest

from harness.client import Client
from harness.direct import SESSION, Answer, Credentials, call, channel, own_credentials
from harness.http2 import ClientStream, connect
from harness.in_process import ENVIRONMENT, ROOT_KEY, Site, session_token
from sessions_adapters.profiles import MEMORY
from sessions_core.domain.channel import Io
from sessions_core.domain.direct import FIRST_TENURE
from sessions_core.errors import StoreUnavailableError
from sessions_server import streams
from sessions_server.auth import authenticator
from sessions_server.data_plane import access

NARROW_KEY = "tr_dev_sk_" + "s" * 24
NEW_KEY = "tr_dev_" + "n" * 24
PATIENCE = 30
KEYS = ["root key", "additional key", "public token"]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at credentials of open streams all the time, and believe none for longer."""
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 0.05)
    monkeypatch.setattr(authenticator, "KEY_SECONDS", 0.0)


@pytest.fixture
def profile() -> str:
    return MEMORY


async def given(site: Site, kind: str, seconds: int = 600) -> Credentials:
    """Return credentials for ``in`` that end after so many seconds, if they have an end."""
    if kind == "direct writer's token":
        lifetime = timedelta(seconds=seconds)
        token = await site.server.context.direct_tokens.sign(channel(way=Io.IN), FIRST_TENURE, lifetime)
    elif kind == "additional key":
        await site.sessions.environments.add_key(ENVIRONMENT, NARROW_KEY, ["read:sessions", "write:sessions"])
        token = NARROW_KEY
    else:
        token = ROOT_KEY if kind == "root key" else session_token(site, "chat-1", seconds=seconds)
    return own_credentials(way=Io.IN, token=token)


async def take_back(site: Site, kind: str) -> None:
    store = site.sessions.environments
    if kind == "additional key":
        [key] = await store.list_keys(ENVIRONMENT)
        await store.revoke_key(ENVIRONMENT, key.id)
    else:
        await store.rotate_root_key(ENVIRONMENT, NEW_KEY, grace=timedelta())


@asynccontextmanager
async def appending(site: Site, shown: Credentials) -> AsyncGenerator[ClientStream]:
    """Begin an append session, and send nothing."""
    path = f"/v1/streams/{quote(shown.stream, safe='')}/records"
    headers = [("authorization", f"Bearer {shown.token}"), ("s2-basin", shown.basin), ("content-type", SESSION)]
    async with asyncio.timeout(PATIENCE), connect(site.port) as connection:
        session = connection.begin("POST", path, headers)
        assert (await session.head())[0] == 200
        yield session


@attrs.define(eq=False)
class Silence:
    """A store's answer that never comes.

    Attributes:
        looks: How often it was waited for.
    """

    looks: int = 0

    async def __call__(self, *_: object) -> None:
        self.looks += 1
        raise StoreUnavailableError


async def until_open(site: Site) -> None:
    while not len(site.server.context.streams):
        await asyncio.sleep(0.01)


def check_end(site: Site, body: bytes) -> None:
    """It ended with a frame that says why, and holds its place no more."""
    end = Answer(200, {}, body).frames
    assert (end.status, end.error["code"]) == (401, "authn")
    assert len(site.server.context.limits.streams) == 0


@pytest.mark.parametrize("kind", [*KEYS, "direct writer's token"])
async def test_an_idle_append_session_ends_with_its_credential(chat: Client, site: Site, kind: str) -> None:
    async with appending(site, await given(site, kind)) as session:
        await take_back(site, kind)
        check_end(site, (await session.answer()).body)


@pytest.mark.parametrize("kind", ["public token", "direct writer's token"])
async def test_an_idle_append_session_ends_when_its_token_is_over(chat: Client, site: Site, kind: str) -> None:
    async with appending(site, await given(site, kind, seconds=1)) as session:
        await session.answer()
    assert len(site.server.context.limits.streams) == 0


@pytest.mark.parametrize("kind", KEYS)
async def test_an_idle_read_session_ends_with_its_credential(chat: Client, site: Site, kind: str) -> None:
    async with asyncio.timeout(PATIENCE):
        shown = await given(site, kind)
        reading = asyncio.create_task(call(site, "GET", shown, query="?tail_offset=0", content_type=SESSION))
        await until_open(site)
        await take_back(site, kind)
        check_end(site, (await reading).body)


async def test_idle_events_end_with_their_credential(chat: Client, site: Site) -> None:
    async with asyncio.timeout(PATIENCE):
        shown = await given(site, "public token")
        events = asyncio.create_task(call(site, "GET", shown, query="?tail_offset=0", accept="text/event-stream"))
        await until_open(site)
        await take_back(site, "public token")
        last = (await events).body.rstrip().rpartition(b"\n\n")[2]
    assert last.startswith(b"event: error\ndata: ")
    assert json.loads(last.partition(b"data: ")[2])["code"] == "authn"


async def test_a_read_that_waits_is_refused_as_soon_as_its_credential_is_taken_back(chat: Client, site: Site) -> None:
    async with asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(call(site, "GET", await given(site, "root key"), query="?tail_offset=0&wait=60"))
        await until_open(site)
        await take_back(site, "root key")
        assert (await waiting).status == 401


@pytest.mark.parametrize("is_session", [True, False])
async def test_a_read_goes_on_while_nobody_can_tell(
    chat: Client, site: Site, monkeypatch: pytest.MonkeyPatch, is_session: bool
) -> None:
    silent = Silence()
    async with asyncio.timeout(PATIENCE):
        shown = await given(site, "public token")
        form = SESSION if is_session else ""
        reading = asyncio.create_task(
            call(site, "GET", shown, query="?tail_offset=0&count=1&wait=20", content_type=form)
        )
        await until_open(site)
        with monkeypatch.context() as patched:
            patched.setattr(type(site.sessions.environments), "find_root_keys", silent)
            while silent.looks < 3:
                await asyncio.sleep(0.01)
            session = await site.sessions.sessions.get(ENVIRONMENT, "chat-1")
            await site.sessions.channels.append_text(session, Io.IN, "news")
            answer = await reading
    assert answer.status == 200
    assert b"news" in answer.body
    assert b"unavailable" not in answer.body


async def test_pieces_that_come_during_a_silence_of_the_store_wait_for_it_once(
    chat: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Silence()
    monkeypatch.setattr(streams, "RECHECK_SECONDS", 3600)
    monkeypatch.setattr(access, "ROW_SECONDS", 3600)
    session = await site.sessions.sessions.get(ENVIRONMENT, "chat-1")
    async with asyncio.timeout(PATIENCE):
        shown = await given(site, "public token")
        reading = asyncio.create_task(
            call(site, "GET", shown, query="?tail_offset=0&count=5&wait=20", content_type=SESSION)
        )
        await until_open(site)
        monkeypatch.setattr(type(site.sessions.environments), "find_root_keys", silent)
        for number in range(5):
            await site.sessions.channels.append_text(session, Io.IN, f"news {number}")
            await asyncio.sleep(0.02)
        answer = await reading
    assert b"news 4" in answer.body
    assert silent.looks == 1


async def test_an_answer_whose_credential_is_over_waits_for_no_silent_store(
    chat: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def silent(*_: object) -> None:
        await never.wait()

    async with appending(site, await given(site, "public token", seconds=1)) as session:
        monkeypatch.setattr(type(site.sessions.environments), "find_root_keys", silent)
        end = Answer(200, {}, (await session.answer()).body).frames
    assert end.status == 503
    assert len(site.server.context.limits.streams) == 0


async def test_an_append_session_goes_on_while_nobody_can_tell(
    chat: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Silence()
    async with appending(site, await given(site, "direct writer's token")) as session:
        with monkeypatch.context() as patched:
            patched.setattr(type(site.sessions.environments), "find_root_keys", silent)
            while silent.looks < 3:
                await asyncio.sleep(0.01)
        await session.send(b"", end=True)
        assert Answer(200, {}, (await session.answer()).body).frames.status is None
