"""A server and workers, each a real process, on one Postgres."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from harness.answers import Answers, problems_of
from harness.client import Client, delta_of
from harness.server import ServerProcess
from harness.worker import WorkerProcess
from workers.conftest import STALL_SECONDS, Hire

pytestmark = [pytest.mark.needs_postgres, pytest.mark.kill, pytest.mark.timeout(90)]

SOON = 20.0
RUNS_OF = """
    select count(*) from sessions.run join sessions.session on session.id = run.session_id where session.external_id = $1
"""


async def until_begun(client: Client, name: str, text: str) -> None:
    """Wait until the beginning of an answer stands on ``out``."""
    deadline = time.monotonic() + SOON
    while True:
        out = await client.records(name, "out")
        if text in "".join(delta_of({"body": json.dumps({"data": record["data"]})}) for record in out):
            return
        assert time.monotonic() < deadline, out
        await asyncio.sleep(0.02)


async def runs_of(client: Client, name: str) -> list[dict[str, Any]]:
    """Return the session's runs, newest first."""
    answer = await client.call("GET", f"/api/v1/sessions/{name}/runs")
    assert answer.status == 200, answer
    return list(answer.body["data"])


async def run_of(client: Client, run: str) -> dict[str, Any]:
    answer = await client.call("GET", f"/api/v1/runs/{run}")
    assert answer.status == 200, answer
    return dict(answer.body)


async def until_dead(worker: WorkerProcess) -> None:
    deadline = time.monotonic() + SOON
    while worker.is_running:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_message_is_answered_by_a_worker(client: Client, hire: Hire) -> None:
    worker = hire()
    assert (await client.create("first", task="who")).status == 201
    assert (await client.say("first", "hello")).status == 200
    text, _ = await client.turn("first")
    assert text == f"hello by {worker.pid}"


async def test_a_message_waits_for_a_worker(client: Client, hire: Hire) -> None:
    await client.create("patient", task="who")
    await client.say("patient", "hello")
    worker = hire()
    text, _ = await client.turn("patient")
    assert text == f"hello by {worker.pid}"


async def test_a_worker_that_is_killed_in_mid_answer_is_replaced(client: Client, hire: Hire) -> None:
    doomed = hire()
    await client.create("killed")
    seq = (await client.say("killed", "slow one")).body["seq"]
    await until_begun(client, "killed", "you said")
    doomed.kill()
    hire()
    while len(await runs_of(client, "killed")) < 2:
        await asyncio.sleep(0.05)
    assert await problems_of(client, "killed", {seq: "slow one"}) == []


async def test_a_message_that_kills_its_workers_is_given_up_and_the_next_one_is_answered(
    client: Client, hire: Hire
) -> None:
    workers = [hire()]
    await client.create("fatal", task="fatal", triggerConfig={"basePayload": {}, "maxAttempts": 2})
    poison = (await client.say("fatal", "die")).body["seq"]
    for _ in range(2):
        await until_dead(workers[-1])
        workers.append(hire())
    fine = (await client.say("fatal", "live")).body["seq"]
    answers = Answers(client, "fatal")
    await answers.until([poison, fine], SOON)
    assert answers.problems({poison: "", fine: "live begun. "}) == []
    statuses = [(await run_of(client, run["runId"]))["status"] for run in await runs_of(client, "fatal")]
    assert statuses[1:] == ["CRASHED", "CRASHED"]
    out = await client.records("fatal", "out")
    assert sum("failed repeatedly" in json.dumps(record["data"]) for record in out) == 1


async def test_an_agent_that_takes_longer_than_its_max_duration_is_stopped(client: Client, hire: Hire) -> None:
    hire()
    config = {"basePayload": {}, "maxDuration": 1, "maxAttempts": 1}
    await client.create("endless", task="stopped", triggerConfig=config)
    seq = (await client.say("endless", "/dev/null")).body["seq"]
    assert await problems_of(client, "endless", {seq: "working"}) == []
    assert (await run_of(client, (await runs_of(client, "endless"))[-1]["runId"]))["status"] == "TIMED_OUT"


async def test_what_a_failed_agent_has_said_stays_in_the_log_of_its_worker(client: Client, hire: Hire) -> None:
    worker = hire()
    config = {"basePayload": {}, "maxAttempts": 1}
    await client.create("indiscreet", task="indiscreet", triggerConfig=config)
    await client.say("indiscreet", "password=hunter2 ")
    await client.turn("indiscreet")
    (run,) = [await run_of(client, run["runId"]) for run in await runs_of(client, "indiscreet")]
    assert (run["status"], run["error"]) == ("COMPLETED_WITH_ERRORS", "ConnectionRefusedError")
    assert "hunter2" not in json.dumps(await client.records("indiscreet", "out"))
    assert any("hunter2" in line for line in worker.output)


async def test_a_worker_that_was_frozen_can_write_nothing_any_more(client: Client, hire: Hire) -> None:
    frozen = hire()
    await client.create("frozen")
    seq = (await client.say("frozen", "slow one")).body["seq"]
    await until_begun(client, "frozen", "you said")
    frozen.freeze()
    hire()
    assert await problems_of(client, "frozen", {seq: "slow one"}, seconds=SOON) == []
    before = await client.records("frozen", "out")
    frozen.thaw()
    assert await asyncio.to_thread(frozen.stop) == 0
    assert await client.records("frozen", "out") == before


async def test_whoever_leads_may_stand_still_and_the_dead_are_replaced_all_the_same(
    client: Client, hire: Hire, server: ServerProcess, environment: dict[str, str]
) -> None:
    """The server came first, so it leads, unless it has lost that before."""
    doomed = hire()
    await client.create("leaderless")
    seq = (await client.say("leaderless", "slow one")).body["seq"]
    connection = await asyncpg.connect(environment["SESSIONS_DATABASE_URL"])
    await until_begun(client, "leaderless", "you said")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        doomed.kill()
        hire()
        deadline = time.monotonic() + 2 * SOON
        while await connection.fetchval(RUNS_OF, "leaderless") < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    finally:
        os.kill(server.pid, signal.SIGCONT)
        await connection.close()
    assert await problems_of(client, "leaderless", {seq: "slow one"}) == []


async def test_sigterm_hands_everything_to_other_workers(client: Client, hire: Hire) -> None:
    leaving = hire(SESSIONS_DRAIN="1")
    names = [f"leaving-{number}" for number in range(10)]
    sent: dict[str, dict[int, str]] = {}
    for number, name in enumerate(names):  # every other one is idle, the others are in the middle of 4 s
        await client.create(name)
        text = f"slow {name}" if number % 2 else f"quick {name}"
        sent[name] = {(await client.say(name, text)).body["seq"]: text}
        await until_begun(client, name, "you said")
    hire()
    assert await asyncio.to_thread(leaving.stop) == 0
    for name in names:
        text = f"more for {name}"
        sent[name][(await client.say(name, text)).body["seq"]] = text
    assert [line for name in names for line in await problems_of(client, name, sent[name])] == []
    assert "Traceback" not in "\n".join(leaving.output)


async def test_an_agent_that_blocks_its_loop_is_not_dead(client: Client, hire: Hire) -> None:
    hire()
    hire()
    await client.create("blocking", task="block")
    await client.say("blocking", str(2 * STALL_SECONDS))
    text, _ = await client.turn("blocking")
    runs = await runs_of(client, "blocking")
    assert len(runs) == 1
    assert text.startswith(f"slept {2 * STALL_SECONDS} in attempt 1 of ")


@pytest.mark.parametrize("off", [-300, 300])
async def test_a_worker_whose_clock_is_five_minutes_off_changes_nothing(client: Client, hire: Hire, off: int) -> None:
    skewed = hire(agents="harness.skewed_agents:agents", CLOCK_OFF=str(off))
    name = f"skewed-{off}"
    await client.create(name, task="block", triggerConfig={"basePayload": {}, "ttl": 60})
    seq = (await client.say(name, "0.1")).body["seq"]
    assert await problems_of(client, name, {seq: "slept 0.1 in attempt 1"}) == []
    hire()
    more = (await client.say(name, str(STALL_SECONDS + 1))).body["seq"]
    sent = {seq: "slept 0.1", more: f"slept {STALL_SECONDS + 1} in attempt 1"}
    assert await problems_of(client, name, sent) == []
    assert len(await runs_of(client, name)) == 1
    assert skewed.stop() == 0


async def test_stop_reaches_the_coroutine_of_a_worker(client: Client, hire: Hire, tmp_path: Path) -> None:
    hire()
    await client.create("stopping", task="stopped")
    delays: list[float] = []
    after: int | None = None
    for number in range(10):
        note = tmp_path / f"stopped-{number}"
        asked = asyncio.create_task(client.turn("stopping", after))
        await client.say("stopping", str(note))
        await until_open(client, "stopping", number + 1)
        at = time.time()
        await client.append("stopping", json.dumps({"kind": "stop"}))
        _, after = await asked
        delays.append(float(note.read_text()) - at)
    print(f"\nstop reached the coroutine after {[round(1000 * delay) for delay in sorted(delays)]} ms")
    assert sorted(delays)[5] < 0.1


async def until_open(client: Client, name: str, turns: int) -> None:
    """Wait until as many turns have begun."""
    deadline = time.monotonic() + SOON
    while True:
        out = await client.records(name, "out")
        if sum("working" in delta_of({"body": json.dumps({"data": r["data"]})}) for r in out) >= turns:
            return
        assert time.monotonic() < deadline, out
        await asyncio.sleep(0.02)


async def test_a_second_signal_ends_a_worker_at_once(client: Client, hire: Hire) -> None:
    worker = hire(SESSIONS_DRAIN="60")
    await client.create("impatient", task="stopped")
    await client.say("impatient", "/dev/null")
    await until_open(client, "impatient", 1)
    worker.send(signal.SIGTERM)
    while not any("stopping" in line for line in worker.output):
        await asyncio.sleep(0.02)
    assert await asyncio.to_thread(worker.stop, 10) == -signal.SIGTERM
