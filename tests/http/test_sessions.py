"""Creating, reading, changing, closing and listing sessions over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest

from harness.client import Client
from harness.in_process import OTHER_KEY, Site

NULLABLE = {"externalId", "currentRunId", "metadata", "closedAt", "closedReason", "expiresAt"}
REQUIRED = {"id", "type", "taskIdentifier", "tags", "createdAt", "updatedAt"} | NULLABLE


async def test_a_new_session_is_201_with_all_its_members(client: Client) -> None:
    answer = await client.create("chat-1", tags=["a"], metadata={"x": 1})
    assert answer.status == 201
    assert answer.body.keys() >= REQUIRED | {"triggerConfig", "runId", "publicAccessToken", "isCached"}
    assert answer.body["id"].startswith("session_")
    assert answer.body["runId"] == answer.body["currentRunId"]
    assert (answer.body["externalId"], answer.body["tags"], answer.body["metadata"]) == ("chat-1", ["a"], {"x": 1})
    assert answer.body["isCached"] is False
    assert answer.body["createdAt"].endswith("Z")
    assert answer.headers["Cache-Control"] == "no-store"


async def test_the_same_external_id_is_200_and_refreshes_only_the_trigger_config(client: Client) -> None:
    first = await client.create("chat-1", tags=["a"])
    again = await client.create("chat-1", tags=["b"], triggerConfig={"basePayload": {"v": 2}})
    assert (again.status, again.body["isCached"]) == (200, True)
    assert again.body["id"] == first.body["id"]
    assert again.body["runId"] == first.body["runId"]
    assert again.body["tags"] == ["a"]
    assert again.body["triggerConfig"] == {"basePayload": {"v": 2}}


async def test_a_session_without_external_id_is_addressed_by_its_friendly_id(client: Client) -> None:
    created = (await client.create()).body
    assert created["externalId"] is None
    assert (await client.append(created["id"], "x")).status == 200


async def test_both_ids_read_the_same_session_as_stored_now(client: Client) -> None:
    created = (await client.create("a/b?c%d é")).body
    for name in (created["id"], "a/b?c%d é"):
        answer = await client.call("GET", f"/api/v1/sessions/{quote(name, safe='')}")
        assert answer.status == 200
        assert answer.body["id"] == created["id"]
        assert answer.body["triggerConfig"] == {"basePayload": {}}


@pytest.mark.parametrize("name", ["session_nope", "nope"])
async def test_an_unknown_session_is_404_and_not_worth_a_retry(client: Client, name: str) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("POST", "/close"), ("GET", "/runs")):
        answer = await client.call(method, f"/api/v1/sessions/{name}{path}", {} if method != "GET" else None)
        assert (answer.status, answer.body["code"]) == (404, "session_not_found")
        assert answer.headers["x-should-retry"] == "false"


async def test_an_update_replaces_what_it_names(client: Client) -> None:
    await client.create("chat-1", tags=["a"], metadata={"x": 1})
    answer = await client.call("PATCH", "/api/v1/sessions/chat-1", {"tags": ["b", "c"]})
    assert (answer.status, answer.body["tags"], answer.body["metadata"]) == (200, ["b", "c"], {"x": 1})
    answer = await client.call("PATCH", "/api/v1/sessions/chat-1", {"metadata": None})
    assert (answer.body["tags"], answer.body["metadata"]) == (["b", "c"], None)


async def test_an_update_may_name_the_external_id_but_not_change_it(client: Client) -> None:
    await client.create("chat-1")
    same = await client.call("PATCH", "/api/v1/sessions/chat-1", {"externalId": "chat-1"})
    assert same.status == 200
    for other in ("chat-2", None):
        answer = await client.call("PATCH", "/api/v1/sessions/chat-1", {"externalId": other})
        assert (answer.status, answer.body["code"]) == (422, "external_id_immutable")


async def test_closing_needs_no_body_and_keeps_the_first_reason(client: Client) -> None:
    await client.create("chat-1")
    first = await client.call("POST", "/api/v1/sessions/chat-1/close", {"reason": "done"})
    again = await client.call("POST", "/api/v1/sessions/chat-1/close")
    assert (first.status, again.status) == (200, 200)
    assert first.body["closedReason"] == again.body["closedReason"] == "done"
    assert first.body["closedAt"] == again.body["closedAt"] is not None


async def test_a_closed_session_is_not_created_again(client: Client) -> None:
    await client.create("chat-1")
    await client.call("POST", "/api/v1/sessions/chat-1/close", {"reason": "done"})
    answer = await client.create("chat-1")
    assert (answer.status, answer.body["code"], answer.body["closedReason"]) == (409, "session_closed", "done")
    assert answer.body["error"] == "Session is closed; use a different externalId to create a new session"
    assert answer.headers["x-should-retry"] == "false"


async def test_a_session_that_is_over_before_it_begins_is_refused(client: Client, site: Site) -> None:
    answer = await client.create("chat-1", expiresAt="2020-01-01T00:00:00Z")
    assert (answer.status, answer.body["field"]) == (400, "expiresAt")
    assert await site.count_sessions() == 0
    await client.create("chat-2")
    cached = await client.create("chat-2", expiresAt="2020-01-01T00:00:00Z")
    assert (cached.status, cached.body["isCached"], cached.body["expiresAt"]) == (200, True, None)


@pytest.mark.parametrize("moment", ["2999-01-01T00:00:00.123Z", "2999-01-01", 32472144000123, None])
async def test_the_end_may_be_said_as_text_as_number_or_not_at_all(client: Client, moment: Any) -> None:
    answer = await client.create("chat-1", expiresAt=moment)
    assert answer.status == 201
    shown = answer.body["expiresAt"]
    assert (shown is None) == (moment is None)
    assert shown is None or datetime.fromisoformat(shown).year == 2999


async def test_another_tasks_session_is_a_conflict(client: Client) -> None:
    await client.create("chat-1", task="one")
    answer = await client.create("chat-1", task="two", triggerConfig={"basePayload": {"stolen": True}})
    assert (answer.status, answer.body["code"]) == (409, "task_mismatch")
    assert answer.headers["x-should-retry"] == "false"
    assert (await client.call("GET", "/api/v1/sessions/chat-1")).body["triggerConfig"] == {"basePayload": {}}


async def test_a_hand_over_replaces_the_run_and_an_unknown_reason_counts_as_manual(client: Client) -> None:
    old = (await client.create("chat-1")).body["runId"]
    body = {"callingRunId": old, "reason": "whatever"}
    answer = await client.call("POST", "/api/v1/sessions/chat-1/end-and-continue", body)
    assert (answer.status, answer.body["swapped"]) == (200, True)
    late = await client.call("POST", "/api/v1/sessions/chat-1/end-and-continue", body)
    assert late.body == {"runId": answer.body["runId"], "swapped": False}
    history = (await client.call("GET", "/api/v1/sessions/chat-1/runs")).body["data"]
    assert [(run["runId"], run["reason"]) for run in history] == [(answer.body["runId"], "manual"), (old, "initial")]


async def test_a_hand_over_needs_a_known_run_and_an_open_session(client: Client) -> None:
    run = (await client.create("chat-1")).body["runId"]
    path = "/api/v1/sessions/chat-1/end-and-continue"
    answer = await client.call("POST", path, {"callingRunId": "run_nope", "reason": "manual"})
    assert (answer.status, answer.body["code"]) == (404, "run_not_found")
    await client.call("POST", "/api/v1/sessions/chat-1/close")
    answer = await client.call("POST", path, {"callingRunId": run, "reason": "manual"})
    assert (answer.status, answer.body["error"]) == (400, "Cannot end-and-continue a closed session")


async def test_a_run_that_was_replaced_may_not_close(client: Client) -> None:
    old = (await client.create("chat-1")).body["runId"]
    await client.call("POST", "/api/v1/sessions/chat-1/end-and-continue", {"callingRunId": old, "reason": "manual"})
    answer = await client.call("POST", "/api/v1/sessions/chat-1/close", {"callingRunId": old})
    assert (answer.status, answer.body["code"]) == (409, "stale_run")
    assert answer.headers["x-should-retry"] == "false"


async def test_a_run_can_be_read_without_its_payload(client: Client) -> None:
    created = (await client.create("chat-1", task="some")).body
    answer = await client.call("GET", f"/api/v1/runs/{created['runId']}")
    assert answer.status == 200
    assert (answer.body["status"], answer.body["sessionId"], answer.body["taskIdentifier"]) == (
        "PENDING",
        created["id"],
        "some",
    )
    assert "payload" not in answer.body
    assert (await client.call("GET", "/api/v1/runs/run_nope")).status == 404


async def test_a_list_is_walked_by_cursors_both_ways_newest_first(client: Client) -> None:
    ids = [(await client.create(f"chat-{number}")).body["id"] for number in range(5)]
    first = (await client.call("GET", "/api/v1/sessions?page%5Bsize%5D=2")).body
    assert "previous" not in first["pagination"]
    second = await _page(client, after=first["pagination"]["next"])
    third = await _page(client, after=second["pagination"]["next"])
    seen = [item["id"] for page in (first, second, third) for item in page["data"]]
    assert sorted(seen) == sorted(ids)
    assert "next" not in third["pagination"]
    back = await _page(client, before=third["pagination"]["previous"])
    assert back["data"] == second["data"]
    assert all("triggerConfig" not in item and item.keys() >= REQUIRED for item in second["data"])


async def _page(client: Client, **cursor: str) -> dict[str, Any]:
    ((name, value),) = cursor.items()
    answer = await client.call("GET", f"/api/v1/sessions?page%5Bsize%5D=2&page%5B{name}%5D={value}")
    assert answer.status == 200
    return dict(answer.body)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("filter[type]=chat.agent", {"a", "b", "c"}),
        ("filter[type]=other", set()),
        ("filter[taskIdentifier]=one", {"a", "b"}),
        ("filter[taskIdentifier]=one,two", {"a", "b", "c"}),
        ("filter[taskIdentifier]=one%2Ctwo", {"a", "b", "c"}),
        ("filter[tags]=red,blue", {"a", "c"}),
        ("filter[status]=ACTIVE", {"a", "c"}),
        ("filter[status]=CLOSED", {"b"}),
        ("filter[status]=ACTIVE,CLOSED", {"a", "b", "c"}),
        ("filter[status]=CLOSED&filter[status]=ACTIVE", {"a", "c"}),
        ("filter[externalId]=b", {"b"}),
        ("filter[createdAt][period]=1d", {"a", "b", "c"}),
        ("filter[createdAt][period]=nonsense", {"a", "b", "c"}),
        ("filter[createdAt][to]=1000", set()),
        ("filter[createdAt][from]=2020-01-01&filter[createdAt][to]=2999-01-01T00:00:00Z", {"a", "b", "c"}),
        ("filter[createdAt][from]=32472144000123", set()),
        ("unknown=1", {"a", "b", "c"}),
    ],
)
async def test_a_list_is_filtered(client: Client, query: str, expected: set[str]) -> None:
    await client.create("a", task="one", tags=["red"])
    await client.create("b", task="one")
    await client.create("c", task="two", tags=["blue", "green"])
    await client.call("POST", "/api/v1/sessions/b/close")
    encoded = query.replace("[", "%5B").replace("]", "%5D")
    answer = await client.call("GET", f"/api/v1/sessions?{encoded}")
    assert answer.status == 200
    assert {item["externalId"] for item in answer.body["data"]} == expected


async def test_another_environment_sees_none_of_it(client: Client, site: Site) -> None:
    created = (await client.create("chat-1")).body
    other = site.client(OTHER_KEY)
    assert (await other.call("GET", "/api/v1/sessions")).body["data"] == []
    for name in ("chat-1", created["id"]):
        assert (await other.call("GET", f"/api/v1/sessions/{name}")).status == 404
    assert (await other.call("GET", f"/api/v1/runs/{created['runId']}")).status == 404
    assert (await other.create("chat-1")).status == 201


@pytest.mark.parametrize(("method", "path"), [("GET", "snapshot-url"), ("PUT", "snapshot-url"), ("GET", "transcript")])
async def test_what_is_not_built_says_so(client: Client, method: str, path: str) -> None:
    await client.create("chat-1")
    answer = await client.call(method, f"/api/v1/sessions/chat-1/{path}")
    assert (answer.status, answer.body["code"]) == (404, "not_built")
