"""Carrying runs out over HTTP, as an engine outside this server does."""

from __future__ import annotations

import asyncio
from typing import Any

import jwt
import pytest

from harness.attempts import DONE, Attempt, begin, current_run, run_of, start
from harness.client import Client, is_control
from harness.in_process import OTHER_KEY, Site, session_token


@pytest.fixture
async def run(client: Client) -> str:
    """The first run of the session ``chat-1``, which nobody carries out."""
    run_id: str = (await client.create("chat-1", triggerConfig={"basePayload": {"a": 1}, "maxDuration": 9})).body[
        "runId"
    ]
    return run_id


async def test_an_attempt_that_begins_is_told_all_it_needs(client: Client, run: str) -> None:
    session = (await client.call("GET", "/api/v1/sessions/chat-1")).body
    begun = dict((await begin(client, run)).begun)
    assert begun.pop("token") is not None
    assert begun == {
        "runId": run,
        "sessionId": session["id"],
        "externalId": "chat-1",
        "taskIdentifier": "echo",
        "reason": "initial",
        "attempt": 1,
        "epoch": 1,
        "lastSeqNum": -1,
        "payload": {"a": 1, "sessionId": session["id"]},
        "previousRunId": None,
        "maxDuration": 9,
        "stallSeconds": 15.0,
    }
    assert (await run_of(client, run))["status"] == "EXECUTING"


async def test_of_ten_engines_one_begins_an_attempt(client: Client, run: str) -> None:
    answers = await asyncio.gather(*(start(client, run) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 9
    refused = next(answer for answer in answers if answer.status == 409)
    assert (refused.body["code"], refused.headers["x-should-retry"]) == ("attempt_begun", "false")
    assert (await start(client, run, 3)).body["code"] == "attempt_begun"


async def test_a_message_is_answered_and_committed(client: Client, run: str, first: int) -> None:
    await client.append("chat-1", "hello")
    attempt = await begin(client, run)
    assert (await attempt.write("a", {"b": [1]})).body["ok"] is True
    ended = await attempt.write("c", turnComplete={"lastSeqNum": first})
    written = [r for r in await client.records("chat-1", "out") if not any(not n for n, _ in r.get("headers", []))]
    assert [record["data"] for record in written[:3]] == ["a", {"b": [1]}, "c"]
    assert is_control(written[3], "turn-complete")
    assert dict(written[3]["headers"])["session-in-event-id"] == str(first)
    assert "public-access-token" in dict(written[3]["headers"])
    assert ended.body["seq"] == written[3]["seqNum"]
    assert (await attempt.complete()).body == {"success": True}
    assert (await run_of(client, run))["status"] == "COMPLETED_SUCCESSFULLY"
    assert await current_run(client) == run, "nothing is left to answer"
    await client.append("chat-1", "more")
    successor = await current_run(client)
    assert (await begin(client, successor)).begun["lastSeqNum"] == first


async def test_a_second_attempt_makes_the_first_one_stale(client: Client, run: str) -> None:
    one = await begin(client, run)
    two = await begin(client, run, 2)
    assert (two.begun["attempt"], two.begun["epoch"]) == (2, 2)
    for answer in (await one.write("late"), await one.call("heartbeat"), await one.complete()):
        assert (answer.status, answer.body["code"], answer.headers["x-should-retry"]) == (409, "stale_run", "false")
    assert (await two.write("mine")).status == 200
    assert (await two.call("heartbeat")).status == 200
    data = [record["data"] for record in await client.records("chat-1", "out")]
    assert "mine" in data
    assert "late" not in data


async def test_a_replaced_run_is_stale(client: Client, run: str) -> None:
    attempt = await begin(client, run)
    body = {"callingRunId": run, "reason": "upgrade"}
    handed = await client.call("POST", "/api/v1/sessions/chat-1/end-and-continue", body, X_Session_Epoch=attempt.epoch)
    assert handed.body["swapped"] is True
    for answer in (await attempt.write("late"), await attempt.call("heartbeat")):
        assert (answer.status, answer.body["code"]) == (409, "stale_run")
    assert (await start(client, run, 2)).body["code"] == "stale_run"
    await begin(client, handed.body["runId"])


async def test_what_nobody_has_answered_starts_another_run(client: Client, run: str, first: int) -> None:
    attempt = await begin(client, run)
    await client.append("chat-1", "one")
    assert (await attempt.complete(lastSeqNum=-1)).status == 200
    successor = await current_run(client)
    assert successor != run
    attempt = await begin(client, successor)
    assert attempt.begun["lastSeqNum"] == -1
    assert (attempt.begun["reason"], attempt.begun["previousRunId"]) == ("continuation", run)
    assert (await attempt.complete(lastSeqNum=first)).status == 200
    assert await current_run(client) == successor


async def test_what_has_not_been_said_yet_cannot_be_dealt_with(client: Client, run: str, first: int) -> None:
    attempt = await begin(client, run)
    await attempt.write(turnComplete={"lastSeqNum": 10**12})
    assert (await attempt.complete(lastSeqNum=10**12)).status == 200
    await client.append("chat-1", "one")
    heir = await begin(client, await current_run(client))
    said = await client.records("chat-1", "in", max(heir.begun["lastSeqNum"], 0) if first else None)
    assert [record["data"] for record in said] == ["one"]
    assert heir.begun["lastSeqNum"] < said[0]["seqNum"]


async def test_a_failed_attempt_is_followed_by_another_run_and_keys_read_why(client: Client, run: str) -> None:
    await client.append("chat-1", "one")
    attempt = await begin(client, run)
    body = {"status": "COMPLETED_WITH_ERRORS", "error": "out of ideas"}
    assert (await attempt.call("attempts/complete", body)).status == 200
    assert await current_run(client) != run
    assert (await run_of(client, run))["error"] == "out of ideas"
    again = await attempt.complete()
    assert (again.status, again.body["code"]) == (409, "stale_run")


async def test_a_retried_append_stores_nothing_twice(client: Client, run: str) -> None:
    attempt = await begin(client, run)
    body = {"records": [{"data": "a"}, {"data": "b"}], "turnComplete": {"lastSeqNum": -1}}
    seqs = [(await attempt.call("out/append", body, X_Part_Id="p")).body["seq"] for _ in range(2)]
    assert seqs[0] == seqs[1]
    records = await client.records("chat-1", "out")
    assert [record["data"] for record in records if not record.get("headers")] == ["a", "b"]
    assert len([record for record in records if is_control(record, "turn-complete")]) == 1


async def test_a_closed_session_has_no_run_to_carry_out(client: Client, run: str) -> None:
    attempt = await begin(client, run)
    await client.call("POST", "/api/v1/sessions/chat-1/close")
    late = await attempt.write("late")
    assert (late.status, late.body["code"], late.body["ok"]) == (409, "session_closed", False)
    assert (await start(client, run, 2)).body["code"] == "session_closed"


async def test_unknown_runs_are_404(client: Client, site: Site, run: str) -> None:
    assert (await start(client, "run_nope")).body["code"] == "run_not_found"
    attempt = Attempt(site.client(OTHER_KEY), run, {"epoch": 1})
    for answer in (await start(attempt.client, run), await attempt.write("x"), await attempt.call("heartbeat")):
        assert (answer.status, answer.body["code"]) == (404, "run_not_found")


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("attempts/start", {}, "attempt"),
        ("attempts/start", {"attempt": 0}, "attempt"),
        ("attempts/start", {"attempt": 1.5}, "attempt"),
        ("attempts/start", {"attempt": "1"}, "attempt"),
        ("out/append", {}, "records"),
        ("out/append", {"records": [{}]}, "records[0].data"),
        ("out/append", {"records": [{"data": 1}] * 1000}, "records"),
        ("out/append", {"turnComplete": {}}, "turnComplete.lastSeqNum"),
        ("out/append", {"turnComplete": {"lastSeqNum": -2}}, "turnComplete.lastSeqNum"),
        ("attempts/complete", {}, "status"),
        ("attempts/complete", {"status": "EXECUTING"}, "status"),
        ("attempts/complete", DONE | {"lastSeqNum": 0.5}, "lastSeqNum"),
        ("attempts/complete", DONE | {"error": "x" * 501}, "error"),
    ],
)
async def test_bad_input_names_the_field(client: Client, run: str, what: str, body: Any, field: str) -> None:
    attempt = Attempt(client, run, {"epoch": 1})
    answer = await attempt.call(what, body)
    assert (answer.status, answer.body["field"]) == (400, field)
    assert (await run_of(client, run))["status"] == "PENDING"


@pytest.mark.parametrize("what", ["heartbeat", "out/append", "attempts/complete"])
@pytest.mark.parametrize("epoch", [None, "0", "x", "-1"])
async def test_the_epoch_has_to_be_there(client: Client, run: str, what: str, epoch: str | None) -> None:
    headers = {} if epoch is None else {"X_Session_Epoch": epoch}
    body = {"heartbeat": None, "out/append": {"records": [{"data": 1}]}, "attempts/complete": DONE}[what]
    answer = await client.call("POST", f"/engine/v1/runs/{run}/{what}", body, **headers)
    assert (answer.status, answer.body["field"]) == (400, "X-Session-Epoch")


# --- the run's own token ---


async def test_a_runs_token_carries_out_that_run_and_nothing_else(client: Client, site: Site, run: str) -> None:
    other = (await client.create("chat-2")).body["runId"]
    attempt = await begin(client, run)
    attempt.client = worker = site.client(attempt.begun["token"])
    assert (await worker.records("chat-1", "in")) == []
    assert (await attempt.write("x")).status == 200
    fresh = await attempt.call("heartbeat")
    assert (fresh.status, fresh.headers["Cache-Control"]) == (200, "no-store")
    assert (await worker.call("GET", f"/api/v1/runs/{run}")).status == 200
    for answer in (
        await start(worker, other),
        await worker.append("chat-1", "x"),
        await worker.append("chat-1", "x", io="out"),
        await worker.append("chat-2", "x"),
        await worker.create("chat-3"),
        await worker.call("GET", "/api/v1/sessions"),
        await worker.call("GET", "/realtime/v1/sessions/chat-2/in/records"),
        await worker.call("PATCH", "/api/v1/sessions/chat-1", {}),
        await worker.call("POST", "/api/v1/sessions/chat-1/close"),
        await worker.call("POST", "/api/v1/sessions/chat-2/close", {"callingRunId": run}, X_Session_Epoch="1"),
    ):
        assert answer.status == 403, answer
    renewed = site.client(fresh.body["token"])
    assert (await renewed.call("POST", f"/engine/v1/runs/{run}/heartbeat", X_Session_Epoch="1")).status == 200


@pytest.mark.parametrize("what", ["end-and-continue", "close"])
async def test_a_run_may_hand_its_session_over_and_close_it_under_its_epoch(
    client: Client, site: Site, run: str, what: str
) -> None:
    attempt = await begin(client, run)
    worker, path = site.client(attempt.begun["token"]), f"/api/v1/sessions/chat-1/{what}"
    body = {"callingRunId": run, "reason": "manual"}
    missing = await worker.call("POST", path, body)
    assert (missing.status, missing.body["field"]) == (400, "X-Session-Epoch")
    assert (await worker.call("POST", path, body, X_Session_Epoch="7")).body["code"] == "stale_run"
    assert (await worker.call("POST", path, body, X_Session_Epoch=attempt.epoch)).status == 200


async def test_a_run_waits_with_its_own_token(client: Client, site: Site, run: str) -> None:
    attempt = await begin(client, run)
    worker = site.client(attempt.begun["token"])
    path = f"/api/v1/runs/{run}/session-streams/wait"
    waits = [
        await worker.call("POST", path, {"session": name, "io": "in", "lastSeqNum": -1})
        for name in ("chat-1", attempt.begun["sessionId"])
    ]
    waitpoint = waits[1].body["waitpointId"]
    blocked = await worker.call("POST", f"/engine/v1/runs/{run}/waitpoints/tokens/{waitpoint}/wait")
    assert blocked.body == {"success": True}
    assert (await worker.call("POST", path, {"session": "chat-2", "io": "in"})).status == 403
    polling = asyncio.create_task(worker.call("GET", f"/api/v1/waitpoints/tokens/{waitpoint}", Timeout_Seconds="20"))
    await client.append("chat-1", "hello")
    assert (await polling).body["output"] == "hello"
    other = (await client.create("chat-2")).body["runId"]
    theirs = await client.call("POST", f"/api/v1/runs/{other}/session-streams/wait", {"session": "chat-2", "io": "in"})
    path = f"/engine/v1/runs/{other}/waitpoints/tokens/{waitpoint}/wait"
    assert (await worker.call("POST", path)).status == 403, "another run does not wait for it"
    for unknown in (theirs.body["waitpointId"], "waitpoint_nope"):
        assert (await worker.call("GET", f"/api/v1/waitpoints/tokens/{unknown}")).status == 403


async def test_a_session_token_carries_no_run_out(client: Client, site: Site, run: str) -> None:
    browser = site.client(session_token(site, "chat-1"))
    assert (await start(browser, run)).status == 403
    assert (await run_of(client, run))["status"] == "PENDING"


async def test_nobody_gets_a_token_for_more_or_longer_than_it_has(client: Client, site: Site, run: str) -> None:
    narrow = await begin(site.client(site.sign([f"write:runs:{run}"], rolling=True)), run)
    assert narrow.begun["token"] is None
    scopes = [f"write:runs:{run}", f"read:runs:{run}", "read:sessions:chat-1"]
    short = await begin(site.client(site.sign(scopes)), run, 2)
    assert short.begun["token"] is None
    rolling = await begin(site.client(site.sign(scopes, rolling=True)), run, 3)
    claims = jwt.decode(rolling.begun["token"], options={"verify_signature": False})
    assert claims["scopes"] == scopes
