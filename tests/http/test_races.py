"""The races that the promises are about, over HTTP against a server process, on each profile that keeps what it has.

Each test prints what it counted: ``pytest -s tests/http/test_races.py``.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Generator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from harness.answers import Answers, problems_of
from harness.backends import SHARED, environment_of, opened_backends
from harness.client import Answer, Client, is_control
from harness.server import KEY, ServerProcess
from harness.storm import text_in
from sessions_adapters.profiles import EMBEDDED, POSTGRES, SCALE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SHORT_LIVED = {"basePayload": {}, "idleTimeoutInSeconds": 1}
CLOSE_PART = "~sessions:session-closed"


@attrs.frozen
class Size:
    """How often each race is run.

    Attributes:
        kills: What the session is doing when its process is killed. On a shared database nobody knows that a run has died
            before its heartbeat has been missed for 15 seconds, which is how long each of them takes there.
        handed_over: How many sessions are handed over at once: so few that a busy machine's pool has a connection for each in time.
    """

    kills: tuple[str, ...] = ("idle", "busy", "idle")
    leavings: int = 4
    closes: int = 20
    talks: int = 8
    handed_over: int = 30


SIZES = {EMBEDDED: Size(), POSTGRES: Size(("busy",), 2, 10, 4, 12), SCALE: Size(("busy",), 2, 5, 4, 12)}


@pytest.fixture(params=(EMBEDDED, *SHARED))
def profile(request: pytest.FixtureRequest) -> str:
    """The choice of adapters under test."""
    name: str = request.param
    return name


@pytest.fixture
def size(profile: str) -> Size:
    return SIZES[profile]


@pytest.fixture
def environment(profile: str, tmp_path: Path) -> Generator[dict[str, str]]:
    """The variables that tell a server process to use the profile under test."""
    with opened_backends(profile, tmp_path / "data") as backends:
        yield environment_of(backends)


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path) -> Generator[ServerProcess]:
    """A server process with the bundled agents."""
    with ServerProcess(tmp_path / "data", environment=environment) as process:
        yield process


@pytest.fixture
async def client(server: ServerProcess) -> AsyncGenerator[Client]:
    """A client that makes as many requests at once as it is asked to."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as http:
        yield Client(http, server.address, KEY)


# --- create ---


async def test_of_100_concurrent_creates_of_one_external_id_one_is_201(client: Client) -> None:
    answers = await asyncio.gather(*(client.create("the-one") for _ in range(100)))
    history = await runs(client, "the-one")
    statuses = Counter(answer.status for answer in answers)
    print(f"\n100 creates: {dict(statuses)}, {len({a.body['id'] for a in answers})} id, {len(history)} run")
    assert statuses == {201: 1, 200: 99}
    assert len({answer.body["id"] for answer in answers}) == 1
    assert {answer.body["runId"] for answer in answers} == {run["runId"] for run in history}
    assert [run["reason"] for run in history] == ["initial"]
    assert [answer.body["isCached"] for answer in answers].count(False) == 1


# --- appends to a session without a live run ---


async def test_50_appends_after_the_run_has_left_start_exactly_one(client: Client, size: Size) -> None:
    await client.create("s", triggerConfig=SHORT_LIVED)
    sent: dict[int, str] = {}
    for number in range(size.leavings):
        await until_left(client, "s")
        sent |= await say_at_once(client, "s", 50, f"round {number}")
        problems, history = await problems_of(client, "s", sent), await runs(client, "s")
        print(f"\nleft, round {number}: {len(sent)} messages, {len(problems)} problems, {len(history)} runs", end="")
        assert problems == []
        assert len(history) == number + 2
    assert [run["reason"] for run in await runs(client, "s")] == ["continuation"] * size.leavings + ["initial"]


@pytest.mark.kill
async def test_50_appends_after_the_run_was_killed_start_exactly_one(
    server: ServerProcess, client: Client, size: Size
) -> None:
    await client.create("s")
    sent = await say_at_once(client, "s", 1, "first")
    assert await problems_of(client, "s", sent) == []
    for number, before in enumerate(size.kills):
        if before == "busy":
            sent |= await say_at_once(client, "s", 1, "slow one that is cut off")
            await asyncio.sleep(0.5)
        server.kill()
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        sent |= await say_at_once(client, "s", 50, f"round {number}")
        await starting
        problems, history = await problems_of(client, "s", sent), await runs(client, "s")
        print(f"\nkilled {before}: {len(sent)} messages, {len(problems)} problems, {len(history)} runs", end="")
        assert problems == []
        assert len(history) == number + 2


# --- close ---


async def test_an_append_that_races_with_close_is_stored_or_refused(client: Client, size: Size) -> None:
    chance, statuses = random.Random(1), Counter[int]()
    for number in range(size.closes):
        name = f"s{number}"
        await client.create(name)
        asking = [after(chance.uniform(0, 0.06), client.say(name, f"{name} {n}")) for n in range(50)]
        closing = asyncio.create_task(after(chance.uniform(0, 0.06), close(client, name, "over")))
        answers = await asyncio.gather(*asking)
        assert (await closing).status == 200
        late = await client.say(name, "too late")
        assert (late.status, late.body["closedReason"]) == (409, "over")

        statuses.update(answer.status for answer in answers)
        *stored, signal = await client.records(name, "in")
        acknowledged = {answer.body["seq"]: n for n, answer in enumerate(answers) if answer.status == 200}
        assert signal["id"] == CLOSE_PART
        assert {record["seqNum"]: text_in(record) for record in stored} == {
            seq: f"{name} {n}" for seq, n in acknowledged.items()
        }
        refused = [answer.body for answer in answers if answer.status != 200]
        assert all(body["code"] == "session_closed" for body in refused)
        last_on_out = (await client.records(name, "out"))[-1]
        assert ["session-closed", "true"] in last_on_out.get("headers", [])
    print(f"\n{size.closes} closes against 50 appends each: {dict(statuses)}")
    assert set(statuses) == {200, 409}


async def test_of_two_closes_at_once_one_gives_the_reason(client: Client, size: Size) -> None:
    firsts = Counter[str]()
    for number in range(2 * size.closes):
        name = f"s{number}"
        await client.create(name, task="nobody" if number % 2 else "echo")
        answers = await asyncio.gather(close(client, name, "one"), close(client, name, "two"))
        row = (await client.call("GET", f"/api/v1/sessions/{name}")).body
        assert [answer.status for answer in answers] == [200, 200]
        stated = {(body["closedAt"], body["closedReason"]) for body in (row, *(answer.body for answer in answers))}
        assert len(stated) == 1
        said = Answers(client, name)
        await said.read()
        assert said.reasons == [row["closedReason"]]
        assert [record["id"] for record in await client.records(name, "in")] == [CLOSE_PART]
        firsts[row["closedReason"]] += 1
    print(f"\ntwo closes at once: one reason and one time each; the reason that stayed: {dict(firsts)}")


# --- leaving ---


@attrs.define(eq=False)
class Talk:
    """Says something whenever the run is just about to leave."""

    client: Client
    name: str
    chance: random.Random
    sent: dict[int, str] = attrs.field(init=False, factory=dict)
    delays: list[float] = attrs.field(init=False, factory=list)

    async def go(self, rounds: int) -> None:
        """Say one or two things a round, each round 0.9 to 1.1 s after the last answer, and wait for the answers."""
        await self.client.create(self.name, triggerConfig=SHORT_LIVED)
        async with self.client.subscribe(self.name, window=60) as (_, frames):
            for number in range(rounds):
                waiting, begun = await self._say(f"{self.name} {number}"), time.monotonic()
                async with asyncio.timeout(30):
                    while waiting:
                        for record in (await anext(frames)).records:
                            if is_control(record, "turn-complete"):
                                waiting.discard(int(dict(record["headers"])["session-in-event-id"]))
                self.delays.append(time.monotonic() - begun)
                await asyncio.sleep(self.chance.uniform(0.9, 1.1))

    async def _say(self, text: str) -> set[int]:
        new = await say_at_once(self.client, self.name, self.chance.choice([1, 1, 2]), text)
        self.sent |= new
        return set(new)


async def test_a_message_to_a_run_that_is_leaving_is_answered(client: Client, size: Size) -> None:
    talks = [Talk(client, f"s{number}", random.Random(number)) for number in range(60)]
    async with asyncio.TaskGroup() as tasks:
        for talk in talks:
            tasks.create_task(talk.go(size.talks))
    problems = [problem for talk in talks for problem in await problems_of(client, talk.name, talk.sent)]
    left = sum([len(await runs(client, talk.name)) - 1 for talk in talks])
    slowest = max(delay for talk in talks for delay in talk.delays)
    count = sum(len(talk.sent) for talk in talks)
    print(f"\n{count} messages to 60 leaving runs, {left} had left, slowest {slowest:.2f} s, {len(problems)} problems")
    assert problems == []
    assert 0 < left < 60 * (size.talks - 1), "the messages came all too early or all too late"


# --- handing over ---


async def test_hand_overs_that_race_with_appends_lose_and_double_nothing(client: Client, size: Size) -> None:
    count = size.handed_over
    found = await asyncio.gather(*(hand_over_twice(client, f"s{n}", is_slow=n % 3 == 0) for n in range(count)))
    problems = [problem for handed_over in found for problem in handed_over]
    print(f"\n{count} sessions, 2 hand-overs each among 24 messages: {len(problems)} problems")
    assert problems == []


async def hand_over_twice(client: Client, name: str, *, is_slow: bool) -> list[str]:
    """Hand over twice, each time with two callers at once, while messages come; say what is wrong afterwards.

    If *is_slow*, the hand-overs meet a turn in its middle.
    """
    chance, sent = random.Random(name), dict[int, str]()
    first: str = (await client.create(name)).body["runId"]
    if is_slow:
        sent |= await say_at_once(client, name, 1, f"slow {name}")

    async def write(writer: int) -> None:
        for number in range(6):
            sent.update(await say_at_once(client, name, 1, f"{name} writer {writer} {number}"))
            await asyncio.sleep(chance.uniform(0, 0.05))

    async with asyncio.TaskGroup() as tasks:
        for writer in range(4):
            tasks.create_task(write(writer))
        chain = [first]
        for reason in ("upgrade", "manual"):
            await asyncio.sleep(chance.uniform(0, 0.15))
            body = {"callingRunId": chain[-1], "reason": reason}
            path = f"/api/v1/sessions/{name}/end-and-continue"
            both = await asyncio.gather(*(client.call("POST", path, body) for _ in range(2)))
            assert [answer.status for answer in both] == [200, 200]
            assert sorted(answer.body["swapped"] for answer in both) == [False, True]
            assert both[0].body["runId"] == both[1].body["runId"]
            chain.append(both[0].body["runId"])

    answers = Answers(client, name)
    await answers.until(sent.keys(), 30)
    problems = answers.problems(sent)
    if answers.hand_overs != 2:
        problems.append(f"{name}: {answers.hand_overs} upgrade-required")
    return problems + await history_problems(client, name, chain)


async def history_problems(client: Client, name: str, chain: list[str]) -> list[str]:
    """Say where the history of *name* is not the two hand-overs along *chain*."""
    history = await runs(client, name)
    named = [(run["runId"], run["reason"]) for run in history]
    found = []
    if named != list(zip(reversed(chain), ("manual", "upgrade", "initial"), strict=True)):
        found.append(f"{name}: the history is {named}, the hand-overs were {chain}")
    records = [(await client.call("GET", f"/api/v1/runs/{run_id}")).body for run_id in chain]
    if [record["previousRunId"] for record in records] != [None, *chain[:-1]]:
        found.append(f"{name}: runs do not name those before them")
    if (await client.call("GET", f"/api/v1/sessions/{name}")).body["currentRunId"] != chain[-1]:
        found.append(f"{name}: the current run is another one")
    return found


# --- what they share ---


async def say_at_once(client: Client, name: str, count: int, text: str) -> dict[int, str]:
    """Append *count* messages at once, each until it is taken; return them by their seqs."""
    texts = [f"{text}, number {number}." for number in range(count)]
    seqs = await asyncio.gather(*(insist(client, name, said) for said in texts))
    assert len(set(seqs)) == count, "two messages got the same seq"
    return dict(zip(seqs, texts, strict=True))


async def insist(client: Client, name: str, text: str) -> int:
    """Append a message, again and again while the server is away or says that it has too much to do."""
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await client.say(name, text, part_id=text)
            except (aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(0.02)
                continue
            if answer.status == 503 and answer.headers["Retry-After"]:
                await asyncio.sleep(0.1)
                continue
            assert answer.status == 200, answer
            return int(answer.body["seq"])


async def after(seconds: float, call: Awaitable[Answer]) -> Answer:
    """Make a call some time later."""
    await asyncio.sleep(seconds)
    return await call


async def close(client: Client, name: str, reason: str) -> Answer:
    return await client.call("POST", f"/api/v1/sessions/{name}/close", json.dumps({"reason": reason}))


async def runs(client: Client, name: str) -> list[dict[str, Any]]:
    """Return the history of a session's runs, newest first."""
    answer = await client.call("GET", f"/api/v1/sessions/{name}/runs")
    assert answer.status == 200, answer
    return list(answer.body["data"])


async def until_left(client: Client, name: str) -> None:
    """Wait until the session's current run has ended well."""
    run_id = (await client.call("GET", f"/api/v1/sessions/{name}")).body["currentRunId"]
    async with asyncio.timeout(10):
        while (await client.call("GET", f"/api/v1/runs/{run_id}")).body["status"] != "COMPLETED_SUCCESSFULLY":
            await asyncio.sleep(0.05)
