"""Credentials for writing a channel without us."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from s2_sdk import S2, AppendInput, CommandRecord, Endpoints
from s2_sdk import Record as StoredRecord

from adapters.s2.conftest import config
from contract.logs import OUT, bodies_of, guard_with
from contract.makers import make_channel
from harness.s2_proxy import Proxy
from sessions_adapters.s2 import S2Basin, S2ChannelLog, S2DirectWrites, open_basin
from sessions_core.domain.channel import Appended, control_record, data_record
from sessions_core.domain.direct import FIRST_TENURE
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import PartId

pytestmark = pytest.mark.needs_s2

LIVE = Guard.live(1)
TOKENS = "/v1/access-tokens"


async def test_without_tokens_the_credentials_are_a_placeholder_and_say_so(basin: S2Basin) -> None:
    writes = S2DirectWrites(basin)
    assert not writes.is_scoped
    credentials = await writes.issue(OUT, tenure=FIRST_TENURE)
    assert credentials.token == "s2-skip-access-tokens"
    assert credentials.basin == basin.config.basin
    assert credentials.endpoint == f"{basin.config.endpoint}/v1"


async def test_what_a_direct_writer_writes_is_in_the_channel(basin: S2Basin, log: S2ChannelLog) -> None:
    await guard_with(log, LIVE)
    await log.append(OUT, [data_record("ours", PartId("ours"))], guard=LIVE)
    credentials = await S2DirectWrites(basin).issue(OUT, tenure=FIRST_TENURE)
    origin = credentials.endpoint.removesuffix("/v1")
    async with S2(credentials.token, endpoints=Endpoints(origin, origin)) as client:
        stream = client.basin(credentials.basin).stream(credentials.stream)
        theirs = [StoredRecord(b'{"data":"theirs","id":"abc1234"}'), StoredRecord(b"", [(b"trigger-control", b"note")])]
        await stream.append(AppendInput(theirs))
        await stream.append(AppendInput([CommandRecord.trim(1)]))
    again = [data_record("again", PartId("abc1234")), control_record("ours")]
    assert await log.append(OUT, again, guard=LIVE) == [Appended(2, is_new=False), Appended(5)]
    found = (await log.read(OUT, 1, 10)).records
    assert bodies_of(found[:3]) == ['{"data":"ours","id":"ours"}', '{"data":"theirs","id":"abc1234"}', ""]
    assert [record.control for record in found] == [None, None, "note", None, "ours"]


async def test_a_token_is_for_one_stream_two_operations_and_a_short_time(proxy: Proxy) -> None:
    proxy.answers[TOKENS] = {"access_token": "scoped"}
    options = config(proxy.endpoint, issues_tokens=True, token="ours", direct_endpoint="https://s2.example")
    async with open_basin(options) as basin:
        writes = S2DirectWrites(basin)
        assert writes.is_scoped
        credentials = await writes.issue(OUT, tenure=FIRST_TENURE)
        assert (credentials.token, credentials.endpoint) == ("scoped", "https://s2.example/v1")
        assert "scoped" not in repr(credentials)
        await writes.issue(OUT, tenure=FIRST_TENURE)
        await writes.issue(make_channel("other"), tenure=FIRST_TENURE)
    asked = [json.loads(request.body) for request in proxy.seen if request.path == TOKENS]
    assert len(asked) == 2, "a fresh token is handed out again"
    assert asked[0]["scope"]["streams"] == {"exact": credentials.stream}
    assert asked[0]["scope"]["basins"] == {"exact": options.basin}
    assert sorted(asked[0]["scope"]["ops"]) == ["append", "trim"]
    assert not asked[0].get("auto_prefix_streams")
    left = datetime.fromisoformat(asked[0]["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=58) < left <= timedelta(hours=1)
    assert asked[0]["id"] != asked[1]["id"]


async def test_a_token_ends_with_what_it_was_asked_for_with(proxy: Proxy) -> None:
    proxy.answers[TOKENS] = {"access_token": "scoped"}
    soon = datetime.now(UTC) + timedelta(minutes=5)
    async with open_basin(config(proxy.endpoint, issues_tokens=True, token="ours")) as basin:
        writes = S2DirectWrites(basin)
        for ends_at in (None, soon, soon, None, soon + timedelta(days=1)):
            await writes.issue(OUT, tenure=FIRST_TENURE, ends_at=ends_at)
    asked = [json.loads(request.body) for request in proxy.seen if request.path == TOKENS]
    ends = [datetime.fromisoformat(each["expires_at"]) for each in asked]
    assert len(ends) == 3, "the long one is handed out again to whoever may have it"
    assert ends[0] > soon + timedelta(minutes=50)
    assert all(abs(end - soon) < timedelta(seconds=2) for end in ends[1:])


async def test_the_stream_is_there_when_its_credentials_are(basin: S2Basin, log: S2ChannelLog) -> None:
    credentials = await S2DirectWrites(basin).issue(OUT, tenure=FIRST_TENURE)
    await S2DirectWrites(basin).issue(OUT, tenure=FIRST_TENURE)
    origin = credentials.endpoint.removesuffix("/v1")
    async with S2("any", endpoints=Endpoints(origin, origin)) as client:
        page = await client.basin(credentials.basin).list_streams()
    assert [stream.name for stream in page.items] == [credentials.stream]
    assert (await log.tail(OUT)).next_seq == 0
