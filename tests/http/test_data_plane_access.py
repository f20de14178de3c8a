"""Whom the data plane turns away: foreign basins and streams, credentials that do not work, what it does not manage."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import attrs
import pytest
from s2_sdk import S2, AppendInput, AppendSession, Endpoints, Record, S2ServerError

from harness.client import Client
from harness.direct import (
    BASIN,
    SESSION,
    Credentials,
    append_input,
    assert_empty,
    call,
    channel,
    open_stream,
    own_credentials,
    token_for,
)
from harness.in_process import ENVIRONMENT, OTHER_ENVIRONMENT, OTHER_KEY, ROOT_KEY, Site
from sessions_adapters.profiles import EMBEDDED
from sessions_core.domain.direct import FIRST_TENURE
from sessions_core.domain.environment import RootKey
from sessions_server.auth import tokens
from sessions_server.data_plane.frames import encode_frame
from sessions_server.data_plane.names import basin_of

pytestmark = pytest.mark.parametrize("profile", [EMBEDDED])
PROTOBUF = "application/protobuf"


@pytest.mark.parametrize("content_type", ["application/json", PROTOBUF, SESSION])
async def test_foreign_basins_and_streams_are_refused(chat: Client, site: Site, content_type: str) -> None:
    await site.client(OTHER_KEY).create("chat-1")
    mine = own_credentials()
    direct = await token_for(site, tenure=FIRST_TENURE)
    foreign = basin_of(OTHER_ENVIRONMENT)
    cases = [
        (attrs.evolve(mine, basin=foreign), 404, "basin_not_found"),
        (attrs.evolve(mine, basin="someone-elses"), 404, "basin_not_found"),
        (attrs.evolve(mine, stream="sessions/nobody/out"), 404, "stream_not_found"),
        (attrs.evolve(mine, stream="anything"), 404, "stream_not_found"),
        (attrs.evolve(mine, token=OTHER_KEY), 404, "basin_not_found"),
        (attrs.evolve(direct, basin=foreign), 403, "permission_denied"),
        (attrs.evolve(direct, stream="sessions/chat-1/in"), 403, "permission_denied"),
        (attrs.evolve(direct, stream="sessions/chat-2/out"), 403, "permission_denied"),
    ]
    body = {
        "application/json": b'{"records":[{"body":"x"}]}',
        PROTOBUF: append_input(b"x"),
        SESSION: encode_frame(append_input(b"x")),
    }[content_type]
    for given, status, code in cases:
        answer = await call(site, "POST", given, body, content_type=content_type)
        assert (answer.status, answer.code) == (status, code), given
    await assert_empty(chat)
    await assert_empty(site.client(OTHER_KEY))


async def test_credentials_that_do_not_work_are_refused(chat: Client, site: Site) -> None:
    clock = site.sessions.clock
    now = int(clock.now().timestamp())
    claims = {"use": "direct", "sub": channel().environment_id, "key": "chat-1", "io": "out", "run": 1, "epoch": 1}
    claims |= {"iat": now, "exp": now + 60}

    def signed(key: str = ROOT_KEY, **more: Any) -> str:
        return tokens.sign(claims | more, RootKey(value=key))

    good = signed()
    assert (await call(site, "POST", Credentials(good), b'{"records":[{"body":"x"}]}')).status == 200
    bad = [
        "nonsense",
        "ä",
        "a.b.c",
        good[:-4],
        good + "x",
        signed(OTHER_KEY),
        signed(sub=OTHER_ENVIRONMENT),
        signed(sub="env_nobody"),
        signed(exp=now - 1),
        site.sign(["write:sessions"], use="direct", sub=OTHER_ENVIRONMENT),
        signed(use="other"),
    ]
    for token in bad:
        for content_type in ("application/json", SESSION):
            answer = await call(site, "POST", Credentials(token), b"", content_type=content_type)
            assert (answer.status, answer.code) == (401, "authn"), token
    answer = await call(site, "POST", Credentials(""), b"{}", authorization="")
    assert (answer.status, answer.code) == (401, "authn")
    assert len(await chat.records("chat-1", "out")) == 1


async def test_a_direct_token_is_no_credential_for_other_routes_and_a_public_one_no_direct_token(
    chat: Client, site: Site
) -> None:
    given = await token_for(site, tenure=FIRST_TENURE)
    direct = site.client(given.token)
    for method, path in (("GET", "/api/v1/sessions/chat-1"), ("POST", "/realtime/v1/sessions/chat-1/out/append")):
        assert (await direct.call(method, path, "x" if method == "POST" else None)).status == 401
    public = site.sign(["write:sessions:chat-1"])
    assert (await call(site, "POST", Credentials(public), b'{"records":[{}]}')).status == 403


async def write_on(session: AppendSession) -> None:
    while True:
        await (await session.submit(AppendInput([Record(b"x")])))


async def write_until_refused(site: Site, token: str) -> S2ServerError:
    """Send batches in one session until it ends with an error."""
    async with asyncio.timeout(20), open_stream(site, Credentials(token)) as stream:
        session = stream.append_session()
        with pytest.raises(S2ServerError) as refusal:
            await write_on(session)
        with suppress(S2ServerError):
            await session.close()
    return refusal.value


async def test_a_session_does_not_outlive_its_token(chat: Client, site: Site) -> None:
    token = await site.server.context.direct_tokens.sign(channel(), FIRST_TENURE, timedelta(seconds=2))
    error = await write_until_refused(site, token)
    assert (error.status_code, error.code) == (401, "authn")
    assert await chat.records("chat-1", "out")


async def test_a_session_does_not_outlive_the_key_that_its_token_is_signed_with(chat: Client, site: Site) -> None:
    token = (await token_for(site, tenure=FIRST_TENURE)).token
    writing = asyncio.create_task(write_until_refused(site, token))
    while not await chat.records("chat-1", "out"):
        await asyncio.sleep(0.01)
    await site.sessions.environments.rotate_root_key(ENVIRONMENT, "tr_dev_" + "c" * 24, grace=timedelta(0))
    error = await writing
    assert (error.status_code, error.code) == (401, "authn")


@pytest.mark.parametrize(
    "path",
    ["/v1/basins", "/v1/streams", "/v1/basins/some-basin", "/v1/streams/x", "/v1/access-tokens", "/v1/metrics/x"],
)
async def test_what_manages_basins_streams_and_tokens_is_not_implemented(site: Site, path: str) -> None:
    headers = {"authorization": f"Bearer {ROOT_KEY}"}
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        async with site.http.request(method, site.address + path, headers=headers) as answer:
            assert (answer.status, (await answer.json())["code"]) == (501, "not_implemented")
    async with site.http.get(site.address + path) as answer:
        assert answer.status == 401


async def test_the_sdk_is_told_so(site: Site) -> None:
    async with S2(ROOT_KEY, endpoints=Endpoints(site.address, site.address)) as s2:
        for attempt in (s2.create_basin("my-basin-1"), s2.list_basins(), s2.basin(BASIN).create_stream("x")):
            with pytest.raises(S2ServerError) as refusal:
                await attempt
            assert (refusal.value.status_code, refusal.value.code) == (501, "not_implemented")


@pytest.mark.parametrize("path", ["/v1/", "/v1/nothing", "/v2/streams/x/records"])
async def test_other_paths_are_not_there(site: Site, path: str) -> None:
    async with site.http.get(site.address + path, headers={"authorization": f"Bearer {ROOT_KEY}"}) as answer:
        assert answer.status == 404
