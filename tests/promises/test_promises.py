"""The eight promises of the design, each against a real server process; one to four with kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import aiohttp
import attrs
import pytest

from harness.client import Client, delta_of, is_command, is_control
from harness.server import KEY, ServerProcess
from harness.storm import storm

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(120)]


def restart(server: ServerProcess) -> None:
    server.kill()
    server.start()


async def test_promise_1_acknowledged_appends_survive_kills_once_and_in_order(
    environment: dict[str, str], tmp_path: Path
) -> None:
    findings = await storm(tmp_path / "data", environment, rounds=3, writers=64, sessions=16, seconds=1.0)
    assert findings.problems == []
    assert findings.kills == 3
    assert findings.acknowledged > 100


async def test_promise_1_a_retry_after_a_kill_gets_the_first_seq(server: ServerProcess, client: Client) -> None:
    await client.create("s", task="nobody")
    first = await client.append("s", "one", "part-1")
    await client.append("s", "two", "part-2")
    restart(server)
    again = await client.append("s", "one", "part-1")
    assert again.status == 200
    assert again.body["seq"] == first.body["seq"]
    assert [record["id"] for record in await client.records("s", "in")] == ["part-1", "part-2"]


async def test_promise_2_a_run_from_before_a_kill_cannot_write_close_or_hand_over(
    server: ServerProcess, client: Client
) -> None:
    created = await client.create("s")
    await client.say("s", "hello")
    await client.turn("s")
    run = (await client.call("GET", f"/api/v1/runs/{created.body['runId']}")).body
    restart(server)
    seq = (await client.say("s", "again")).body["seq"]
    await until_answered(client, "s", seq)

    zombie = {"X_Session_Epoch": str(run["epoch"])}
    refused = [
        await client.append("s", "late", io="out", **zombie),
        await client.call("POST", "/api/v1/sessions/s/close", {"callingRunId": run["id"]}, **zombie),
        await client.call(
            "POST", "/api/v1/sessions/s/end-and-continue", {"callingRunId": run["id"], "reason": "x"}, **zombie
        ),
    ]
    assert [(answer.status, answer.body["code"]) for answer in refused] == [(409, "stale_run")] * 3
    assert all(answer.headers["x-should-retry"] == "false" for answer in refused)
    assert (await client.call("GET", "/api/v1/sessions/s")).body["closedAt"] is None
    assert not [record for record in await client.records("s", "out") if record["data"] == "late"]


async def test_promise_3_a_message_acknowledged_just_before_a_kill_is_answered(
    server: ServerProcess, client: Client
) -> None:
    await client.create("s")
    seq = (await client.say("s", "are you there")).body["seq"]
    restart(server)
    assert "are you there" in await until_answered(client, "s", seq)


async def test_promise_3_a_kill_in_mid_answer_leads_to_a_whole_answer(server: ServerProcess, client: Client) -> None:
    await client.create("s")
    seq = (await client.say("s", "slow one")).body["seq"]
    await asyncio.sleep(0.6)
    restart(server)
    text = await until_answered(client, "s", seq)
    assert text.endswith(" 39")


async def test_promise_3_a_message_to_a_run_that_has_left_starts_another(client: Client) -> None:
    config = {"basePayload": {}, "idleTimeoutInSeconds": 1}
    created = await client.create("s", triggerConfig=config)
    first = (await client.say("s", "first")).body["seq"]
    await until_answered(client, "s", first)
    await until_ended(client, created.body["runId"])
    second = (await client.say("s", "second")).body["seq"]
    assert "second" in await until_answered(client, "s", second)
    runs = (await client.call("GET", "/api/v1/sessions/s/runs")).body["data"]
    assert [item["reason"] for item in runs] == ["continuation", "initial"]


async def test_promise_4_closed_stays_closed_after_a_kill(server: ServerProcess, client: Client) -> None:
    await client.create("s")
    await client.say("s", "hello")
    closed = await client.call("POST", "/api/v1/sessions/s/close", {"reason": "done"})
    restart(server)
    again = await client.call("POST", "/api/v1/sessions/s/close", {"reason": "other"})
    assert (again.body["closedAt"], again.body["closedReason"]) == (closed.body["closedAt"], "done")
    before = [await client.records("s", io) for io in ("in", "out")]
    on_in, on_out = await client.say("s", "more"), await client.append("s", "more", io="out")
    assert (on_in.status, on_in.body["code"], on_in.body["closedReason"]) == (409, "session_closed", "done")
    assert (on_out.status, on_out.body["code"], on_out.body["ok"]) == (400, "session_closed", False)
    assert (await client.create("s")).status == 409
    assert before == [await client.records("s", io) for io in ("in", "out")]


async def test_promise_4_no_append_is_acknowledged_after_close_returned(client: Client) -> None:
    await client.create("s", task="nobody")
    acknowledged: list[int] = []
    closed = asyncio.Event()
    late = 0

    async def write(writer: int) -> None:
        nonlocal late
        for number in range(200):
            was_closed = closed.is_set()
            answer = await client.append("s", f"{writer}-{number}")
            if answer.status != 200:
                assert answer.status == 409
                return
            late += was_closed
            acknowledged.append(answer.body["seq"])

    async with asyncio.TaskGroup() as tasks:
        for writer in range(8):
            tasks.create_task(write(writer))
        await asyncio.sleep(0.1)
        assert (await client.call("POST", "/api/v1/sessions/s/close", {})).status == 200
        closed.set()
    stored = [record["seqNum"] for record in await client.records("s", "in")]
    assert late == 0
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(acknowledged) + 1, "everything acknowledged and the close signal, nothing else"


async def test_promise_5_a_reader_resumes_after_the_seq_it_names(server: ServerProcess, client: Client) -> None:
    await client.create("s")
    seq = (await client.say("s", "hello")).body["seq"]
    await until_answered(client, "s", seq)
    everything = await client.records("s", "out")
    restart(server)
    for after in (None, everything[0]["seqNum"], everything[-2]["seqNum"]):
        async with client.subscribe("s", after=after, X_Peek_Settled="1") as (response, events):
            assert response.headers["X-Session-Settled"] == "true"
            assert "X-Session-Gap" not in response.headers
            seen = [record["seq_num"] async for frame in events for record in frame.records if not is_command(record)]
        assert seen == [r["seqNum"] for r in everything if after is None or r["seqNum"] > after]


async def test_promise_6_another_environment_sees_nothing(server: ServerProcess, client: Client) -> None:
    created = await client.create("same", tags=["secret"])
    await client.append("same", "mine", "part")
    other = attrs.evolve(client, key=await new_environment(server))
    assert (await other.call("GET", "/api/v1/sessions/same")).status == 404
    assert (await other.call("GET", f"/api/v1/sessions/{created.body['id']}")).status == 404
    assert (await other.call("GET", f"/api/v1/runs/{created.body['runId']}")).status == 404
    assert (await other.call("GET", "/api/v1/sessions")).body["data"] == []
    assert await other.records("same", "in") == []
    theirs = await other.create("same")
    assert (theirs.status, theirs.body["isCached"]) == (201, False)
    assert (await other.append("same", "theirs", "part")).status == 200
    assert [record["data"] for record in await client.records("same", "in")] == ["mine"]
    assert [record["data"] for record in await other.records("same", "in")] == ["theirs"]


async def test_promise_7_a_session_token_does_only_what_its_holder_may(client: Client) -> None:
    created = await client.create("mine")
    await client.create("other")
    token = attrs.evolve(client, key=created.body["publicAccessToken"])
    assert (await token.say("mine", "hello")).status == 200
    assert (await token.call("GET", f"/api/v1/sessions/{created.body['id']}")).status == 200
    refused = [
        await token.append("mine", "x", io="out"),
        await token.call("POST", "/api/v1/sessions/mine/close", {}),
        await token.call("PATCH", "/api/v1/sessions/mine", {"tags": ["x"]}),
        await token.call("GET", "/api/v1/sessions"),
        await token.create("third"),
        await token.say("other", "hello"),
        await token.call("GET", "/api/v1/sessions/other"),
        await token.call("GET", "/api/v1/sessions/unknown"),
    ]
    assert [answer.status for answer in refused] == [403] * len(refused)


async def test_promise_8_errors_have_one_shape_and_leak_nothing(client: Client) -> None:
    stranger = attrs.evolve(client, key="tr_dev_wrong")
    answers = [
        await stranger.call("GET", "/api/v1/sessions"),
        await client.call("GET", "/api/v1/sessions/none"),
        await client.call("POST", "/api/v1/sessions", "{"),
        await client.call("POST", "/api/v1/sessions", {"type": 1}),
        await client.call("GET", "/api/v1/sessions?page[after]=x"),
        await client.append("none", "x"),
        await client.call("DELETE", "/api/v1/sessions/none"),
        await client.call("GET", "/nowhere"),
    ]
    for answer in answers:
        assert 400 <= answer.status < 500, answer
        assert isinstance(answer.body["error"], str)
        assert isinstance(answer.body["code"], str)
        assert set(answer.body) <= {"error", "code", "field", "details", "ok", "param", "type"}
        assert answer.headers["x-request-id"]
        assert "Traceback" not in json.dumps(answer.body)
    assert answers[3].body["field"] == "type"


async def test_sigterm_ends_streams_cleanly_and_exits_with_0(server: ServerProcess, client: Client) -> None:
    await client.create("s")
    async with client.subscribe("s") as (_, events):
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        last = [frame async for frame in events][-1]
    assert last.data == "[DONE]"
    assert await stopping == 0


async def test_a_full_disk_is_503_and_what_was_acknowledged_stays_readable(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", file_limit=2048) as server:
        async with aiohttp.ClientSession() as http:
            client = Client(http, server.address, KEY)
            await client.create("s", task="nobody")
            acknowledged: list[int] = []
            for size in (100_000, 1):  # up to where nothing fits any more
                while (answer := await client.append("s", "x" * size, f"part-{len(acknowledged)}")).status == 200:
                    acknowledged.append(answer.body["seq"])
                    assert len(acknowledged) < 1000
                assert (answer.status, answer.body["ok"]) == (503, False)
                assert "code" in answer.body
            assert [record["seqNum"] for record in await client.records("s", "in")] == acknowledged
            assert (await client.create("t")).status == 503
            assert (await client.call("GET", "/api/v1/sessions/t")).status == 404
            assert (await client.call("GET", "/api/v1/sessions/s")).status == 200
        server.kill()
        server.file_limit = None
        server.start()
        async with aiohttp.ClientSession() as http:
            again = await Client(http, server.address, KEY).append("s", "room again", f"part-{len(acknowledged)}")
        assert (again.status, again.body["seq"]) == (200, len(acknowledged))


async def test_a_second_server_on_the_same_data_says_so_and_stops(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data"), pytest.raises(RuntimeError, match="in use"):
        ServerProcess(tmp_path / "data").start()


async def until_answered(client: Client, name: str, seq: int) -> str:
    """Return the text on ``out`` up to the turn-complete that covers *seq*."""
    text = ""
    async with client.subscribe(name) as (_, events):
        async for frame in events:
            for record in frame.records:
                if is_control(record, "turn-complete"):
                    if int(dict(record["headers"])["session-in-event-id"]) >= seq:
                        return text
                    text = ""
                else:
                    text += delta_of(record)
    raise AssertionError(f"message {seq} was not answered; text so far: {text!r}")


async def until_ended(client: Client, run_id: str) -> None:
    """Wait until a run has ended well."""
    async with asyncio.timeout(10):
        while (await client.call("GET", f"/api/v1/runs/{run_id}")).body["status"] != "COMPLETED_SUCCESSFULLY":
            await asyncio.sleep(0.1)


async def new_environment(server: ServerProcess) -> str:
    """Make another environment with the command line, beside the running server; return its key."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sessions_server", "env", "create", "--data", str(server.data), "--json"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **server.environment},
    )
    output, _ = await process.communicate()
    await asyncio.sleep(1.1)
    return str(json.loads(output)[0]["key"])
