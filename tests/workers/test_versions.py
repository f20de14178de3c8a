"""Moving sessions to a newer worker, under load."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.answers import Answers, problems_of
from harness.client import Client
from workers.conftest import Hire

pytestmark = [pytest.mark.needs_postgres, pytest.mark.kill, pytest.mark.timeout(90)]

NAMES = tuple(f"upgraded-{number}" for number in range(8))


@pytest.fixture(scope="module")
def environment(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Say where a version is told to go: by a file of its name."""
    return environment | {"UPGRADES": str(tmp_path_factory.mktemp("upgrades"))}


@pytest.fixture
def upgrades(environment: dict[str, str]) -> Path:
    return Path(environment["UPGRADES"])


def locked_to(version: str) -> dict[str, object]:
    return {"triggerConfig": {"basePayload": {}, "lockToVersion": version}}


async def write_until(client: Client, name: str, stop: asyncio.Event, sent: dict[int, str]) -> None:
    number = 0
    while not stop.is_set():
        text = f"{name} number {number}."
        answer = await client.say(name, text)
        assert answer.status == 200, answer
        sent[answer.body["seq"]] = text
        number += 1
        await asyncio.sleep(0.05)


async def test_sessions_move_to_a_newer_worker_under_load(client: Client, hire: Hire, upgrades: Path) -> None:
    old = hire(SESSIONS_WORKER_VERSION="1.9")
    sent: dict[str, dict[int, str]] = {name: {} for name in NAMES}
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for name in NAMES:
            assert (await client.create(name, task="versioned")).status == 201
            tasks.create_task(write_until(client, name, stop, sent[name]))
        await asyncio.sleep(1)
        hire(SESSIONS_WORKER_VERSION="1.10")
        (upgrades / "1.9").touch()
        await asyncio.sleep(1)
        assert await asyncio.to_thread(old.stop) == 0
        await asyncio.sleep(0.5)
        stop.set()
    for name in NAMES:
        answers = Answers(client, name)
        await answers.until(sent[name].keys(), seconds=20)
        assert answers.problems(sent[name]) == []
        versions = [answers.texts[seq][0].rpartition(" ")[2] for seq in sorted(sent[name])]
        assert versions == sorted(versions, reverse=True)  # "1.9", then "1.10"
        assert set(versions) == {"1.9", "1.10"}


async def test_a_locked_session_stays_with_its_version_and_moves_when_it_is_locked_to_another(
    client: Client, hire: Hire, upgrades: Path
) -> None:
    hire(SESSIONS_WORKER_VERSION="2")
    hire(SESSIONS_WORKER_VERSION="3")
    await client.create("locked", task="versioned", **locked_to("2"))
    sent = {(await client.say("locked", "first")).body["seq"]: "first by version 2"}
    assert await problems_of(client, "locked", sent) == []
    assert (await client.create("locked", task="versioned", **locked_to("3"))).status == 200
    (upgrades / "2").touch()
    sent[(await client.say("locked", "second")).body["seq"]] = "second by version 3"
    assert await problems_of(client, "locked", sent) == []


async def test_a_session_that_is_locked_to_a_version_waits_for_it(client: Client, hire: Hire) -> None:
    hire(SESSIONS_WORKER_VERSION="4")
    await client.create("waiting", task="versioned", **locked_to("5"))
    seq = (await client.say("waiting", "hello")).body["seq"]
    assert await problems_of(client, "waiting", {seq: "hello"}, seconds=1.5) != []
    hire(SESSIONS_WORKER_VERSION="5")
    assert await problems_of(client, "waiting", {seq: "hello by version 5"}) == []


async def test_a_worker_takes_only_runs_of_its_queues(client: Client, hire: Hire) -> None:
    slow = hire("--queue", "slow")
    await client.create("slow", task="who", triggerConfig={"basePayload": {}, "queue": "slow"})
    await client.create("usual", task="who")
    await client.say("slow", "hello")
    seq = (await client.say("usual", "hello")).body["seq"]
    assert (await client.turn("slow"))[0] == f"hello by {slow.pid}"
    assert await problems_of(client, "usual", {seq: "hello"}, seconds=1.5) != []
    usual = hire("--queue", "default", "--queue", "other")
    assert (await client.turn("usual"))[0] == f"hello by {usual.pid}"
