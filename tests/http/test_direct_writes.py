"""Credentials for writing a channel without us, on a log that issues them."""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs
import pytest

from harness.client import Client
from harness.in_process import ENVIRONMENT, ROOT_KEY, Site, session_token
from sessions_core.domain.channel import Channel
from sessions_core.domain.direct import FIRST_TENURE, Tenure
from sessions_core.ports.direct_writes import DirectWrites, WriteCredentials


@attrs.define
class Issuer(DirectWrites):
    """Issues credentials that name what they are for."""

    is_scoped: bool = True
    issued: list[tuple[Channel, Tenure]] = attrs.field(factory=list)
    ends: list[datetime | None] = attrs.field(factory=list)

    async def issue(self, channel: Channel, *, tenure: Tenure, ends_at: datetime | None = None) -> WriteCredentials:
        self.ends.append(ends_at)
        self.issued.append((channel, tenure))
        return WriteCredentials(
            token="t", basin="basin-one", stream=f"{channel.key}/{channel.io}", endpoint="http://s2"
        )


@pytest.fixture
def issuer(site: Site) -> Issuer:
    """What the site's log issues credentials with."""
    made = Issuer()
    site.sessions.ports = attrs.evolve(site.sessions.ports, direct_writes=made)
    return made


async def test_a_key_gets_credentials_for_out_in_headers(client: Client, issuer: Issuer) -> None:
    created = (await client.create("chat-1")).body
    for name in ("chat-1", created["id"]):
        answer = await client.call("PUT", f"/realtime/v1/sessions/{name}/out")
        assert (answer.status, answer.body) == (202, {"version": "v2"})
        assert {name: value for name, value in answer.headers.items() if name.startswith("X-S2-")} == {
            "X-S2-Access-Token": "t",
            "X-S2-Basin": "basin-one",
            "X-S2-Stream-Name": "chat-1/out",
            "X-S2-Endpoint": "http://s2",
            "X-S2-Flush-Interval-Ms": "100",
            "X-S2-Max-Retries": "10",
        }
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_session_token_gets_credentials_for_in_only_where_they_can_be_limited(
    client: Client, site: Site, issuer: Issuer
) -> None:
    await client.create("chat-1")
    browser = site.client(session_token(site, "chat-1"))
    assert (await browser.call("PUT", "/realtime/v1/sessions/chat-1/in")).status == 202
    assert (await browser.call("PUT", "/realtime/v1/sessions/chat-1/out")).status == 403
    assert (await browser.call("PUT", "/realtime/v1/sessions/other/in")).status == 403
    issuer.is_scoped = False
    assert (await browser.call("PUT", "/realtime/v1/sessions/chat-1/in")).status == 403
    assert (await client.call("PUT", "/realtime/v1/sessions/chat-1/in")).status == 202
    assert len(issuer.issued) == 2


async def test_credentials_end_with_what_they_were_asked_for_with(client: Client, site: Site, issuer: Issuer) -> None:
    await client.create("chat-1")
    key, end = "tr_dev_sk_" + "e" * 24, site.sessions.clock.now() + timedelta(minutes=5)
    await site.sessions.environments.add_key(ENVIRONMENT, key, ["write:sessions"], expires_at=end)
    for credential in (ROOT_KEY, key, session_token(site, "chat-1", seconds=60)):
        assert (await site.client(credential).call("PUT", "/realtime/v1/sessions/chat-1/in")).status == 202
    forever, until_the_key_ends, until_the_token_ends = issuer.ends
    assert forever is None
    assert until_the_key_ends is not None
    assert until_the_token_ends is not None
    assert abs(until_the_key_ends - end) < timedelta(milliseconds=1)
    assert until_the_token_ends <= site.sessions.clock.now() + timedelta(seconds=60)


async def test_an_external_id_needs_no_session_yet_and_a_friendly_id_does(client: Client, issuer: Issuer) -> None:
    assert (await client.call("PUT", "/realtime/v1/sessions/later/out")).status == 202
    assert issuer.issued[0][1] == FIRST_TENURE
    assert (await client.call("PUT", "/realtime/v1/sessions/session_nope/out")).status == 404


async def test_a_closed_session_gives_none(client: Client, issuer: Issuer) -> None:
    await client.create("chat-1")
    await client.call("POST", "/api/v1/sessions/chat-1/close")
    answer = await client.call("PUT", "/realtime/v1/sessions/chat-1/out")
    assert (answer.status, answer.body["code"]) == (400, "session_closed")
    assert answer.body["error"] == "Cannot initialize a channel on a closed session"
    assert issuer.issued == []
