"""Engines that are wrong, late, or not what they say: what they must not get, write, or bring down."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.attempts import DONE, Attempt, begin, current_run, run_of, start
from harness.client import Answer, Client, is_control
from harness.in_process import Site, session_token

# On one profile: what is tried here is decided before any store is asked.
on_one_profile = pytest.mark.parametrize("profile", ["memory"])


@pytest.fixture
async def run(client: Client) -> str:
    """The first run of the session ``chat-1``, which nobody carries out."""
    run_id: str = (await client.create("chat-1")).body["runId"]
    return run_id


async def everything_as(client: Client, run: str, *, session: str, epoch: str = "1") -> dict[str, Answer]:
    """Try all that a run may do, as *run* on *session*."""
    attempt = Attempt(client, run, {"epoch": epoch})
    calling = {"callingRunId": run, "reason": "manual"}
    return {
        "start": await start(client, run, 2),
        "heartbeat": await attempt.call("heartbeat"),
        "append": await attempt.write("forged", turnComplete={"lastSeqNum": 0}),
        "complete": await attempt.complete(),
        "hand over": await client.call(
            "POST", f"/api/v1/sessions/{session}/end-and-continue", calling, X_Session_Epoch=epoch
        ),
        "close": await client.call("POST", f"/api/v1/sessions/{session}/close", calling, X_Session_Epoch=epoch),
    }


async def out_of(client: Client, name: str = "chat-1") -> list[Any]:
    return [record["data"] for record in await client.records(name, "out") if not record.get("headers")]


# --- who is no engine ---


@on_one_profile
async def test_a_browsers_token_does_nothing_that_a_run_does(client: Client, site: Site, run: str) -> None:
    attempt = await begin(client, run)
    created = await client.create("chat-1")
    for token in (created.body["publicAccessToken"], session_token(site, "chat-1")):
        browser = site.client(token)
        answers = await everything_as(browser, run, session="chat-1", epoch="7")
        # Whoever may write the session may hand it over, as in the contract; that takes no run's right.
        assert answers.pop("hand over").body["code"] == "stale_run"
        assert {what: answer.status for what, answer in answers.items()} == dict.fromkeys(answers, 403)
        for session in ("chat-1", attempt.begun["sessionId"]):
            path = f"/api/v1/runs/{run}/session-streams/wait"
            assert (await browser.call("POST", path, {"session": session, "io": "in"})).status == 403
    assert await out_of(client) == []
    assert (await run_of(client, run))["status"] == "EXECUTING"


@on_one_profile
@pytest.mark.parametrize(
    "scopes",
    [
        ["write:sessions", "read:sessions", "admin:sessions"],
        ["write:tasks", "read:runs"],
        ["write:runs:run_other", "read:sessions"],
        ["write:run", "write:runs:", "write:runs:*", "write:*", "runs:write"],
        ["admin:runs", "read:all", "admin:all"],
    ],
)
async def test_scopes_that_only_look_like_it_carry_no_run_out(
    client: Client, site: Site, run: str, scopes: list[str]
) -> None:
    answers = await everything_as(site.client(site.sign(scopes)), run, session="chat-1")
    for what in ("start", "heartbeat", "append", "complete"):
        assert answers[what].status == 403, what
    assert (await client.call("GET", f"/api/v1/runs/{run}")).body["attempt"] == 0


# --- a run that meddles with another ---


async def test_a_runs_token_does_nothing_to_another_run_or_session(client: Client, site: Site, run: str) -> None:
    other = (await client.create("chat-2")).body["runId"]
    victim = await begin(client, other)
    intruder = site.client((await begin(client, run)).begun["token"])
    for session in ("chat-2", victim.begun["sessionId"]):
        answers = await everything_as(intruder, other, session=session, epoch=victim.epoch)
        assert {what: answer.status for what, answer in answers.items()} == dict.fromkeys(answers, 403)
        # As itself, on the other's session:
        body = {"callingRunId": run, "reason": "manual"}
        for what in ("end-and-continue", "close"):
            path = f"/api/v1/sessions/{session}/{what}"
            assert (await intruder.call("POST", path, body, X_Session_Epoch="1")).status == 403
    assert await out_of(client, "chat-2") == []
    assert (await victim.write("mine")).status == 200


async def test_idempotency_keys_of_one_run_are_not_those_of_another(client: Client, site: Site, run: str) -> None:
    theirs = (await client.create("chat-2")).body["runId"]
    made = {}
    for name, run_id in (("chat-1", run), ("chat-2", theirs)):
        worker = site.client((await begin(client, run_id)).begun["token"])
        path, body = f"/api/v1/runs/{run_id}/session-streams/wait", {"session": name, "io": "in", "idempotencyKey": "k"}
        answers = [await worker.call("POST", path, body) for _ in range(2)]
        assert [answer.body["isCached"] for answer in answers] == [False, True]
        made[name] = answers[1].body["waitpointId"]
        assert (await worker.call("GET", f"/api/v1/waitpoints/tokens/{made[name]}")).status == 200
    assert made["chat-1"] != made["chat-2"]
    await client.append("chat-2", "for the second")
    first = (await client.call("GET", f"/api/v1/waitpoints/tokens/{made['chat-1']}")).body
    assert first["status"] == "WAITING"


# --- a run that is over ---


async def test_a_replaced_run_can_do_nothing_under_any_epoch(client: Client, site: Site, run: str) -> None:
    old = await begin(client, run)
    zombie = site.client(old.begun["token"])
    await client.call("POST", "/api/v1/sessions/chat-1/end-and-continue", {"callingRunId": run, "reason": "manual"})
    new = await begin(client, await current_run(client))
    for epoch in ("1", new.epoch, "3", str(2**31 - 1)):
        answers = await everything_as(zombie, run, session="chat-1", epoch=epoch)
        if epoch == new.epoch:
            assert answers.pop("hand over").body == {"runId": new.run, "swapped": False}
        for what, answer in answers.items():
            assert (answer.status, answer.body["code"], answer.headers["x-should-retry"]) == (
                409,
                "stale_run",
                "false",
            ), (epoch, what, answer)
    assert (await new.write("mine")).status == 200
    assert await out_of(client) == ["mine"]
    assert (await client.call("GET", "/api/v1/sessions/chat-1")).body["closedAt"] is None


async def test_an_attempt_that_has_ended_can_do_nothing_more(client: Client, site: Site, run: str) -> None:
    attempt = await begin(client, run)
    attempt.client = site.client(attempt.begun["token"])
    assert (await attempt.complete()).status == 200
    answers = await everything_as(attempt.client, run, session="chat-1")
    # It still is the session's current run, so it may hand over and close; but it writes no more.
    for what in ("start", "heartbeat", "append", "complete"):
        assert (answers[what].status, answers[what].body["code"]) == (409, "stale_run"), what
    assert await out_of(client) == []


async def test_of_a_stale_and_a_current_attempt_that_write_at_once_only_the_current_one_is_read(
    client: Client, run: str
) -> None:
    one = await begin(client, run)
    statuses: list[int] = []

    async def write_on() -> None:
        while not statuses or statuses[-1] == 200:
            statuses.append((await one.write({"by": 1})).status)

    writing = asyncio.create_task(write_on())
    while len(statuses) < 3:
        await asyncio.sleep(0)
    two = await begin(client, run, 2)
    assert (await two.write({"by": 2})).status == 200
    await writing
    assert statuses[-1] == 409
    by = [data["by"] for data in await out_of(client)]
    assert by == [1] * statuses.count(200) + [2], "nothing of the stale attempt comes after its successor began"


async def test_an_environments_root_key_is_bound_to_the_epoch_as_well(client: Client, run: str) -> None:
    await begin(client, run)
    await begin(client, run, 2)
    late = await Attempt(client, run, {"epoch": 1}).write("late")
    assert (late.status, late.body["code"]) == (409, "stale_run")


# --- what is sent ---


@on_one_profile
@pytest.mark.parametrize(
    "body",
    [
        b'{"records":[{"data":' + b"[" * 200_000 + b"]" * 200_000 + b"}]}",
        b'{"records":[{"data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}]}",
        b'{"records":[{"data":NaN}]}',
        b'{"records":[{"data":1e999}]}',
        b'{"records":[{"data":"\\ud800"}]}',
        b'{"records":[{"data":1}],"turnComplete":{"lastSeqNum":1e999}}',
        b'{"records":[{"data":1}],"turnComplete":{"lastSeqNum":99999999999999999999999999}}',
        b'{"records":[{"data":1}],"turnComplete":{"lastSeqNum":true}}',
        b'{"records":{"data":1}}',
        b'{"records":[[1]]}',
        b'{"records":"x"}',
        b"[]",
        b"\xff",
    ],
    ids=lambda body: repr(body[:24] + body[-30:]),
)
async def test_what_cannot_be_a_record_is_400_and_stores_nothing(client: Client, run: str, body: bytes) -> None:
    attempt = await begin(client, run)
    answer = await attempt.call("out/append", body)
    assert (answer.status, answer.body["ok"]) == (400, False)
    assert await client.records("chat-1", "out") == []
    assert (await attempt.write("still well")).status == 200


async def test_whatever_is_json_is_kept_as_it_is(client: Client, run: str) -> None:
    attempt = await begin(client, run)
    values: list[Any] = [
        None,
        True,
        0.1,
        -(2**53) + 1,
        "",
        "\x00\u2028\U0001f600</script>",
        {"": {"a\nb": []}},
        "data: x\n\n",
        [[[]]],
    ]
    assert (await attempt.write(*values)).status == 200
    assert await out_of(client) == values
    async with client.subscribe("chat-1", window=1) as (_, frames):
        read = [json.loads(r["body"])["data"] async for frame in frames for r in frame.records if not r.get("headers")]
    assert read == values


async def test_data_that_looks_like_a_control_record_is_data(client: Client, run: str) -> None:
    attempt = await begin(client, run)
    forged = {"headers": [["trigger-control", "turn-complete"], ["session-in-event-id", "99"]], "body": ""}
    assert (await attempt.call("out/append", {"records": [{"data": forged, **forged}], **forged})).status == 200
    records = await client.records("chat-1", "out")
    assert not any(is_control(record, "turn-complete") for record in records)
    assert (await begin(client, run, 2)).begun["lastSeqNum"] == -1


@on_one_profile
@pytest.mark.parametrize("part", ["~sessions:session-closed", "~sessions:", "x" * 257])
async def test_a_part_id_of_the_librarys_own_or_none_at_all_is_refused(client: Client, run: str, part: str) -> None:
    attempt = await begin(client, run)
    answer = await attempt.call("out/append", {"records": [{"data": 1}]}, X_Part_Id=part)
    assert (answer.status, answer.body["field"]) == (400, "X-Part-Id")


async def test_a_part_id_of_full_length_makes_a_whole_append_repeatable(client: Client, run: str) -> None:
    attempt = await begin(client, run)
    body = {"records": [{"data": number} for number in range(30)], "turnComplete": {"lastSeqNum": -1}}
    answers = [await attempt.call("out/append", body, X_Part_Id="x" * 256) for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert await out_of(client) == list(range(30))


@on_one_profile
@pytest.mark.parametrize("epoch", ["1 ", "1, 1", "+1", "01x", "\uff11", "1.0", "99999999999", "0x1", ""])
async def test_an_epoch_is_digits_and_nothing_else(client: Client, run: str, epoch: str) -> None:
    await begin(client, run)
    answer = await Attempt(client, run, {"epoch": epoch}).write("x")
    assert answer.status in {200, 400}
    assert answer.status == (200 if epoch.strip() == "1" else 400)


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u4e16", "\U0001f600"])
async def test_the_longest_error_fits_in_every_script(client: Client, run: str, letter: str) -> None:
    attempt = await begin(client, run)
    text = letter * 500
    assert (await attempt.call("attempts/complete", {"status": "CRASHED", "error": text})).status == 200
    assert (await run_of(client, run))["error"] == text


async def test_an_error_is_shown_to_keys_and_to_no_token(client: Client, site: Site, run: str) -> None:
    attempt = await begin(client, run)
    body = {"status": "COMPLETED_WITH_ERRORS", "error": "postgres://user:hunter2@db"}
    worker = site.client(attempt.begun["token"])
    attempt.client = worker
    assert (await attempt.call("attempts/complete", body)).status == 200
    browser = site.client(session_token(site, "chat-1"))
    for reader in (worker, browser):
        shown = await reader.call("GET", f"/api/v1/runs/{run}")
        assert shown.status == 200
        assert "hunter2" not in json.dumps(shown.body)
    runs = await browser.call("GET", "/api/v1/sessions/chat-1/runs")
    assert "hunter2" not in json.dumps(runs.body)
    assert (await run_of(client, run))["error"] == body["error"]


async def test_a_run_learns_no_session_token_from_what_it_writes(client: Client, site: Site, run: str) -> None:
    """Its turn-complete carries one for the session's clients, who may write ``in``; the run may not."""
    attempt = await begin(client, run)
    worker = attempt.client = site.client(attempt.begun["token"])
    assert set((await attempt.write(turnComplete={"lastSeqNum": -1})).body) == {"ok", "seq"}
    seen = json.dumps(await worker.records("chat-1", "out"))
    async with worker.subscribe("chat-1", window=1) as (_, frames):
        seen += json.dumps([frame.data async for frame in frames])
    assert "turn-complete" in seen
    assert "public-access-token" not in seen
    assert "public-access-token" in json.dumps(await client.records("chat-1", "out"))


@on_one_profile
async def test_answers_with_a_token_are_not_to_be_stored(client: Client, run: str) -> None:
    started = await start(client, run)
    assert started.headers["Cache-Control"] == "no-store"


@on_one_profile
async def test_complete_takes_final_words_only(client: Client, run: str) -> None:
    attempt = await begin(client, run)
    for status in ("PENDING", "EXECUTING", "DELAYED", "EXPIRED", "SYSTEM_FAILURE", "completed_successfully", None, 1):
        assert (await attempt.call("attempts/complete", {"status": status})).status == 400, status
    assert (await attempt.call("attempts/complete", DONE)).status == 200
