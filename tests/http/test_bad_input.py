"""Wrong members, parameters and paths: the documented status, an error that names what is wrong, and nothing stored."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from harness.client import Client
from harness.errors import check
from harness.in_process import ROOT_KEY, Site

GOOD: dict[str, Any] = {"type": "t", "taskIdentifier": "one", "triggerConfig": {"basePayload": {}}}
CONFIG = GOOD["triggerConfig"]
# On one profile: what is tried here is refused before any store is asked.
on_one_profile = pytest.mark.parametrize("profile", ["memory"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": None}, "type"),
        ({"type": ""}, "type"),
        ({"type": "x" * 65}, "type"),
        ({"type": 5}, "type"),
        ({"type": "a\x00"}, "type"),
        ({"taskIdentifier": ...}, "taskIdentifier"),
        ({"taskIdentifier": ""}, "taskIdentifier"),
        ({"taskIdentifier": "x" * 129}, "taskIdentifier"),
        ({"triggerConfig": ...}, "triggerConfig"),
        ({"triggerConfig": []}, "triggerConfig"),
        ({"triggerConfig": {}}, "triggerConfig.basePayload"),
        ({"triggerConfig": {"basePayload": []}}, "triggerConfig.basePayload"),
        ({"triggerConfig": {"basePayload": {"a": ["x\x00"]}}}, "triggerConfig.basePayload.a[0]"),
        ({"triggerConfig": {**CONFIG, "machine": "huge"}}, "triggerConfig.machine"),
        ({"triggerConfig": {**CONFIG, "tags": ["x"] * 11}}, "triggerConfig.tags"),
        ({"triggerConfig": {**CONFIG, "tags": ["a", 5]}}, "triggerConfig.tags[1]"),
        ({"triggerConfig": {**CONFIG, "maxAttempts": 0}}, "triggerConfig.maxAttempts"),
        ({"triggerConfig": {**CONFIG, "maxAttempts": 11}}, "triggerConfig.maxAttempts"),
        ({"triggerConfig": {**CONFIG, "maxAttempts": True}}, "triggerConfig.maxAttempts"),
        ({"triggerConfig": {**CONFIG, "idleTimeoutInSeconds": 3601}}, "triggerConfig.idleTimeoutInSeconds"),
        ({"triggerConfig": {**CONFIG, "queue": "x" * 129}}, "triggerConfig.queue"),
        ({"externalId": ""}, "externalId"),
        ({"externalId": "   "}, "externalId"),
        ({"externalId": "x" * 257}, "externalId"),
        ({"externalId": "session_mine"}, "externalId"),
        ({"externalId": " session_mine"}, "externalId"),
        ({"externalId": "a\x00b"}, "externalId"),
        ({"externalId": 5}, "externalId"),
        ({"externalId": None}, "externalId"),
        ({"tags": "a"}, "tags"),
        ({"tags": ["a"] * 11}, "tags"),
        ({"tags": ["ok", "x" * 129]}, "tags[1]"),
        ({"tags": ["ok", None]}, "tags[1]"),
        ({"tags": ["a\x00"]}, "tags[0]"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"a": {"b": "\x00"}}}, "metadata.a.b"),
        ({"expiresAt": True}, "expiresAt"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
        ({"expiresAt": ""}, "expiresAt"),
        ({"expiresAt": 1e300}, "expiresAt"),
        ({"expiresAt": 10**17}, "expiresAt"),
        ({"expiresAt": "9999-12-31T23:59:59-12:00"}, "expiresAt"),
        ({"expiresAt": {}}, "expiresAt"),
    ],
)
@on_one_profile
async def test_a_wrong_member_of_a_create_is_named(
    client: Client, site: Site, change: dict[str, Any], field: str
) -> None:
    body = {name: value for name, value in {**GOOD, **change}.items() if value is not ...}
    check(await client.call("POST", "/api/v1/sessions", body), 400, field)
    assert await site.count_sessions() == 0


async def test_unknown_members_are_ignored(client: Client) -> None:
    answer = await client.call("POST", "/api/v1/sessions", {**GOOD, "whatever": {"x": [1]}})
    assert answer.status == 201


async def test_deep_metadata_is_400_and_large_numbers_come_back(client: Client) -> None:
    deep: Any = {}
    for _ in range(70):
        deep = {"a": deep}
    check(await client.create("chat-1", metadata=deep), 400)
    assert (await client.create("chat-1", metadata={"n": 10**30})).status == 201
    assert (await client.call("GET", "/api/v1/sessions/chat-1")).body["metadata"]["n"] == pytest.approx(1e30)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("close", {"reason": 5}, "reason"),
        ("close", {"reason": "x" * 257}, "reason"),
        ("close", {"reason": "a\x00"}, "reason"),
        ("close", {"callingRunId": ""}, "callingRunId"),
        ("end-and-continue", {}, "callingRunId"),
        ("end-and-continue", {"callingRunId": "run_x"}, "reason"),
        ("end-and-continue", {"callingRunId": "run_x", "reason": "x" * 65}, "reason"),
        ("end-and-continue", {"callingRunId": "run\x00", "reason": "manual"}, "callingRunId"),
    ],
)
@on_one_profile
async def test_a_wrong_member_of_a_mutation_is_named(
    client: Client, path: str, body: dict[str, Any], field: str
) -> None:
    before = (await client.create("chat-1")).body
    check(await client.call("POST", f"/api/v1/sessions/chat-1/{path}", body), 400, field)
    after = (await client.call("GET", "/api/v1/sessions/chat-1")).body
    assert (after["closedAt"], after["currentRunId"]) == (None, before["currentRunId"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tags": None}, "tags"),
        ({"tags": ["x"] * 11}, "tags"),
        ({"metadata": 5}, "metadata"),
        ({"metadata": {"a": "\x00"}}, "metadata.a"),
        ({"externalId": 5}, "externalId"),
    ],
)
@on_one_profile
async def test_a_wrong_update_is_400(client: Client, body: dict[str, Any], field: str) -> None:
    before = (await client.create("chat-1", tags=["a"], metadata={"x": 1})).body
    check(await client.call("PATCH", "/api/v1/sessions/chat-1", body), 400, field)
    assert (await client.call("GET", "/api/v1/sessions/chat-1")).body["updatedAt"] == before["updatedAt"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page[size]=0", "page[size]"),
        ("page[size]=101", "page[size]"),
        ("page[size]=x", "page[size]"),
        ("page[size]=1.5", "page[size]"),
        ("page[after]=nonsense", "page[after]"),
        ("page[before]=e30", "page[before]"),
        ("page[after]=%s", "page[after]"),
        ("page[after]=a&page[before]=b", "page[after]"),
        ("filter[status]=OPEN", "filter[status]"),
        ("filter[status]=ACTIVE,active", "filter[status]"),
        ("filter[createdAt][from]=yesterday", "filter[createdAt][from]"),
        ("filter[createdAt][to]=99999999999999999999", "filter[createdAt][to]"),
        ("filter[type]=%00", "query"),
        ("filter[type]=%ff", "query"),
    ],
)
@on_one_profile
async def test_a_wrong_list_parameter_is_named(site: Site, query: str, field: str) -> None:
    target = "/api/v1/sessions?" + query.replace("[", "%5B").replace("]", "%5D")
    check(await site.raw_call("GET", target), 400, field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("afterEventId=-1", "afterEventId"),
        ("afterEventId=x", "afterEventId"),
        ("afterEventId=", "afterEventId"),
        ("afterEventId=99999999999999999999", "afterEventId"),
        ("afterEventId=%D9%A3", "afterEventId"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
    ],
)
@on_one_profile
async def test_a_wrong_records_parameter_is_named(client: Client, query: str, field: str) -> None:
    await client.create("chat-1")
    check(await client.call("GET", f"/realtime/v1/sessions/chat-1/in/records?{query}"), 400, field)


@pytest.mark.parametrize("seconds", ["0", "601", "-1", "1.5", "x", "", "9" * 5000])
@on_one_profile
async def test_a_wrong_window_is_400_before_the_stream_begins(client: Client, seconds: str) -> None:
    await client.create("chat-1")
    answer = await client.call("GET", "/realtime/v1/sessions/chat-1/in", Timeout_Seconds=seconds)
    check(answer, 400, "Timeout-Seconds")


@pytest.mark.parametrize("epoch", ["x", "-1", "0", "1.5", "99999999999"])
@on_one_profile
async def test_a_wrong_epoch_is_400(client: Client, epoch: str) -> None:
    await client.create("chat-1")
    check(await client.append("chat-1", "x", io="out", X_Session_Epoch=epoch), 400, "X-Session-Epoch")


async def test_a_wrong_part_id_is_400(client: Client, site: Site) -> None:
    await client.create("chat-1")
    check(await client.append("chat-1", "x", "p" * 257), 400, "X-Part-Id")
    target = "/realtime/v1/sessions/chat-1/in/append"
    raw = f"POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT_KEY}\r\nConnection: close\r\n"
    answer = await site.raw(raw.encode() + b"X-Part-Id: a\xffb\r\nContent-Length: 1\r\n\r\nx")
    check(answer, 400, "X-Part-Id")
    assert await client.records("chat-1", "in") == []


@pytest.mark.parametrize(
    "segment",
    ["%00", "a%00b", "%ff", "%C3", "%zz", "%", "%2", "x" * 257, quote("😀" * 257, safe="")],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/sessions/{}"),
        ("POST", "/api/v1/sessions/{}/close"),
        ("GET", "/realtime/v1/sessions/{}/in/records"),
        ("POST", "/realtime/v1/sessions/{}/in/append"),
        ("GET", "/api/v1/runs/{}"),
    ],
)
@on_one_profile
async def test_a_wrong_id_in_the_path_is_400(site: Site, method: str, path: str, segment: str) -> None:
    answer = await site.raw_call(method, path.format(segment))
    check(answer, 400, "run" if "runs" in path else "session")


@pytest.mark.parametrize("io", ["both", "IN", "in%20", "%69n", "records"])
@on_one_profile
async def test_a_wrong_direction_is_400_for_those_who_may_call(site: Site, io: str) -> None:
    check(await site.raw_call("POST", f"/realtime/v1/sessions/x/{io}/append"), 400, "io")
    check(await site.raw_call("GET", f"/realtime/v1/sessions/x/{io}"), 400, "io")
    check(await site.raw_call("PUT", f"/realtime/v1/sessions/x/{io}"), 400, "io")
    check(await site.raw_call("PUT", f"/realtime/v1/sessions/x/{io}", credential="x"), 401)


@pytest.mark.parametrize(
    "external_id",
    ["a/b", "a%2Fb", "%", "..", "a?b#c", "é", "😀" * 256, "a:b", '"', "a b", "a+b", "~", "\u202e", "\u0080", "a\\b"],
)
async def test_an_external_id_may_be_any_text_and_is_decoded_once(
    client: Client, site: Site, external_id: str, first: int
) -> None:
    created = await client.create(external_id)
    assert (created.status, created.body["externalId"]) == (201, external_id)
    target = quote(external_id, safe="").replace(".", "%2E")
    answer = await site.raw_call("GET", f"/api/v1/sessions/{target}")
    assert (answer.status, answer.json["id"]) == (200, created.body["id"])
    appended = await site.raw_call("POST", f"/realtime/v1/sessions/{target}/in/append", b"x")
    assert appended.json == {"ok": True, "seq": first}
    records = await site.raw_call("GET", f"/realtime/v1/sessions/{created.body['id']}/in/records")
    assert [record["data"] for record in records.json["records"]] == ["x"]
    token = created.body["publicAccessToken"]
    again = await site.raw_call("POST", f"/realtime/v1/sessions/{target}/in/append", b"y", credential=token)
    assert again.json["seq"] == first + 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"io": "in"}, "session"),
        ({"session": "x"}, "io"),
        ({"session": "x", "io": "both"}, "io"),
        ({"session": "", "io": "in"}, "session"),
        ({"session": "x\x00", "io": "in"}, "session"),
        ({"session": "x", "io": "in", "idempotencyKey": "k" * 2049}, "idempotencyKey"),
        ({"session": "x", "io": "in", "idempotencyKey": "k\x00"}, "idempotencyKey"),
        ({"session": "x", "io": "in", "tags": ["t"] * 11}, "tags"),
        ({"session": "x", "io": "in", "tags": [1]}, "tags"),
        ({"session": "x", "io": "in", "lastSeqNum": 1.5}, "lastSeqNum"),
        ({"session": "x", "io": "in", "lastSeqNum": 1e300}, "lastSeqNum"),
        ({"session": "x", "io": "in", "lastSeqNum": "1"}, "lastSeqNum"),
        ({"session": "x", "io": "in", "timeout": 5}, "timeout"),
    ],
)
@on_one_profile
async def test_a_wrong_wait_is_named(client: Client, body: dict[str, Any], field: str) -> None:
    run = (await client.create("chat-1")).body["runId"]
    answer = await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)
    assert answer.status == 400
    assert answer.body["field"].startswith(field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "scopes"),
        ({"scopes": "read"}, "scopes"),
        ({"scopes": [5]}, "scopes[0]"),
        ({"scopes": ["x" * 7000]}, "scopes"),
        ({"scopes": [], "expirationTime": "later"}, "expirationTime"),
        ({"scopes": [], "expirationTime": 1e300}, "expirationTime"),
        ({"scopes": [], "oneTimeUse": "yes"}, "oneTimeUse"),
    ],
)
@on_one_profile
async def test_a_wrong_token_request_is_named(client: Client, body: dict[str, Any], field: str) -> None:
    check(await client.call("POST", "/api/v1/auth/public-tokens", body), 400, field)
