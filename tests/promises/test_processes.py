"""Several server processes on one database: any of them may be asked anything, and any may die."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import aiohttp
import anyio
import attrs
import pytest

from harness.backends import SHARED, environment_of, opened_backends
from harness.client import Client, Frame, delta_of, is_control
from harness.server import KEY, ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

COUNT = 3
PIDS = re.compile(r"processes: ([\d, ]+)$")
HEALTH = re.compile(r'sessions_http_requests_total\{process="(\d)",route="/healthz",status="200"\} (\S+)')
REPLACED = re.compile(r"process (\d+) has ended with (-?\d+) and is started again")


@attrs.define(eq=False)
class Family(ServerProcess):
    """A server of several processes."""

    pids: list[int] = attrs.field(init=False, factory=list)

    def command(self) -> list[str]:
        return [*super().command(), "--processes", str(COUNT)]

    def start(self) -> Family:
        super().start()
        self.pids = [int(pid) for pid in self.wait_for(PIDS)[1].split(",")]
        return self


@contextmanager
def shared(profile: str, data: Path) -> Generator[dict[str, str]]:
    """The variables that make server processes use one database, whose first environment has the harness's key."""
    with opened_backends(profile, data) as backends:
        yield environment_of(backends) | {"SESSIONS_STALL": "3"}


@pytest.fixture(params=SHARED)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Family]:
    with shared(request.param, tmp_path) as environment, Family(tmp_path, environment=environment) as family:
        yield family


@pytest.fixture
async def client(family: Family) -> AsyncGenerator[Client]:
    async with aiohttp.ClientSession() as http:
        yield Client(http, family.address, KEY)


async def until(is_so: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not is_so():
            await asyncio.sleep(0.02)


def replaced(family: Family) -> list[tuple[str, str]]:
    """Return pid and exit code of every process that was started again."""
    return [(found[1], found[2]) for line in family.output if (found := REPLACED.match(line))]


def has_replaced(family: Family, count: int) -> bool:
    return len(replaced(family)) == count


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- one port ---


async def test_all_processes_take_connections_and_stop_together(family: Family) -> None:
    assert len(set(family.pids)) == COUNT
    assert family.pid not in family.pids
    seen: set[str] = set()
    with anyio.fail_after(60):
        while len(seen) < COUNT:
            seen.update(await asyncio.gather(*(ask_who_answers(family) for _ in range(20))))
    assert await anyio.to_thread.run_sync(family.stop) == 0
    assert not any(map(is_alive, family.pids))
    assert family.output.count("sessions is stopping; a second signal ends it at once") == 1


async def ask_who_answers(family: Family) -> str:
    """Ask over a connection of its own; return what the process calls itself in the ids of its requests."""
    async with aiohttp.ClientSession() as http, http.get(f"{family.address}/healthz") as response:
        return response.headers["X-Request-Id"].rpartition("-")[0]


async def test_whichever_process_is_asked_shows_the_metrics_of_all(family: Family) -> None:
    asked = Counter[str]()
    with anyio.fail_after(60):
        while len(asked) < COUNT:
            asked.update(await asyncio.gather(*(ask_who_answers(family) for _ in range(20))))
        while sorted((counts := await health_counts(family)).values()) != sorted(asked.values()):
            await asyncio.sleep(0.05)  # each tells the others of its own every now and then
    assert len(counts) == COUNT


async def health_counts(family: Family) -> dict[str, float]:
    """Return how often each process says that it has been asked how it is, whichever is asked for that."""
    async with aiohttp.ClientSession() as http, http.get(f"{family.address}/metrics") as response:
        text = await response.text()
    assert text.count("# TYPE sessions_http_requests_total counter") == 1
    return {found[1]: float(found[2]) for found in HEALTH.finditer(text)}


async def test_a_process_that_is_killed_is_started_again_and_nothing_acknowledged_is_lost(
    family: Family, client: Client
) -> None:
    await client.create("chat")
    await client.say("chat", "slow and steady")
    for number, victim in enumerate(family.pids, 1):
        os.kill(victim, signal.SIGKILL)
        await until(partial(has_replaced, family, number))
    text, _ = await client.turn("chat", window=60)
    assert "you said: slow and steady" in text
    assert replaced(family) == [(str(pid), "-9") for pid in family.pids]
    assert await anyio.to_thread.run_sync(family.stop) == 0


async def test_the_children_of_a_parent_that_is_killed_stop_by_themselves(family: Family, client: Client) -> None:
    await client.create("chat")
    family.kill()
    await until(lambda: not any(map(is_alive, family.pids)))


@pytest.mark.parametrize("profile", ["memory", "embedded"])
def test_a_profile_with_one_owner_is_refused(tmp_path: Path, profile: str) -> None:
    with pytest.raises(RuntimeError, match=f"--processes must be 1 with the profile {profile}"):
        Family(tmp_path, environment={"SESSIONS_PROFILE": profile}).start()


def test_a_server_whose_processes_cannot_start_ends(tmp_path: Path) -> None:
    environment = {"SESSIONS_PROFILE": "postgres", "SESSIONS_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    family = Family(tmp_path, environment=environment)
    with pytest.raises(RuntimeError, match="unavailable"):
        family.start()
    assert family._process is not None
    assert family._process.returncode == 1


@attrs.define(eq=False)
class FrailFamily(ServerProcess):
    """Two processes of which the second kills the first while it is starting."""

    def command(self) -> list[str]:
        return [sys.executable, "-u", "-m", "harness.frail_family", str(self.data)]


async def test_a_process_that_dies_while_another_is_starting_is_started_again(tmp_path: Path) -> None:
    family = FrailFamily(tmp_path, environment={"PYTHONPATH": os.pathsep.join(sys.path)})
    family.launch()
    try:
        killed, code = family.wait_for(REPLACED).groups()
        assert code == "-9"
        await until(lambda: (tmp_path / "pid").read_text() not in ("", killed))
    finally:
        assert await anyio.to_thread.run_sync(family.stop) == 0


async def test_a_server_whose_output_nobody_reads_any_more_goes_on(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    family = FrailFamily(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = await anyio.open_process(family.command(), stdout=writing, stderr=None, env=environment)
    os.close(writing)
    try:
        await until(lambda: (tmp_path / "lives").exists() and (tmp_path / "lives").read_text() == "00")
        process.terminate()
        with anyio.fail_after(30):
            assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.aclose()


async def test_readers_and_work_in_progress_are_brought_to_an_end_in_every_process(
    family: Family, client: Client
) -> None:
    """SIGTERM to the parent alone: streams end as streams do, and what is left of an answer comes from the next server."""
    await client.create("chat")
    await client.say("chat", "slow and steady")
    endings: list[str] = []

    async def read_to_the_end() -> None:
        async with (
            aiohttp.ClientSession() as http,
            Client(http, family.address, KEY).subscribe("chat", window=60) as (_, frames),
        ):
            started.append(True)
            endings.append([frame.data async for frame in frames][-1])

    started: list[bool] = []
    readers = [asyncio.create_task(read_to_the_end()) for _ in range(2 * COUNT)]
    await until(lambda: len(started) == len(readers))
    os.kill(family.pid, signal.SIGTERM)
    await asyncio.gather(*readers)
    assert endings == ["[DONE]"] * len(readers)
    assert await anyio.to_thread.run_sync(family.wait) == 0
    family.start()
    text, _ = await Client(client.http, family.address, KEY).turn("chat", window=60)
    assert "you said: slow and steady" in text


# --- processes of their own ---


@pytest.fixture(scope="module", params=SHARED)
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[list[ServerProcess]]:
    """Those of one database for all tests; each test has sessions of its own, and starts again what it kills."""
    data = tmp_path_factory.mktemp("servers")
    with shared(request.param, data) as environment, ExitStack() as stack:
        yield [stack.enter_context(ServerProcess(data, environment=environment)) for _ in range(COUNT)]


@pytest.fixture
async def clients(servers: list[ServerProcess]) -> AsyncGenerator[list[Client]]:
    async with aiohttp.ClientSession() as http:
        yield [Client(http, server.address, KEY) for server in servers]


async def test_what_is_created_in_one_process_is_written_followed_and_closed_in_others(clients: list[Client]) -> None:
    one, two, three = clients
    created = await one.create("talk")
    async with three.subscribe("talk") as (_, frames):
        assert (await two.say("talk", "hello")).status == 200
        assert await text_up_to(frames, "session-in-event-id") == "you said: hello"
        # Each of them knows the session as it was; nobody tells them that it is closed.
        for client in clients:
            assert (await client.say("talk", "again")).status == 200
            assert await text_up_to(frames, "session-in-event-id") == "you said: again"
        assert (await two.call("POST", "/api/v1/sessions/talk/close", {"reason": "enough"})).status == 200
        for client in (one, three):
            refused = await client.say("talk", "late")
            assert (refused.status, refused.body["closedReason"]) == (409, "enough")
            late = await client.append("talk", "late", io="out")
            assert (late.status, late.body["code"]) == (400, "session_closed")
        assert await text_up_to(frames, "session-closed") == ""
    assert (await one.create("talk")).body["code"] == "session_closed"
    assert created.status == 201


async def test_a_stop_that_is_said_to_one_process_ends_the_answer_that_another_streams(clients: list[Client]) -> None:
    one, two, three = clients
    await one.create("stop")
    for client in clients:
        async with three.subscribe("stop", after=await tail_of(three, "stop")) as (_, frames):
            await two.say("stop", "slow " + "and steady " * 50)
            async for frame in frames:
                if any(delta_of(record) for record in frame.records):
                    break
            await client.append("stop", '{"kind": "stop"}')
            rest = await text_up_to(frames, "session-in-event-id")
        assert rest.count("steady") < 40, "it was not cut short"


async def tail_of(client: Client, name: str) -> int | None:
    """Return the seq of the last record on ``out``, if there is one."""
    records = await client.records(name, "out")
    return records[-1]["seqNum"] if records else None


async def text_up_to(frames: AsyncGenerator[Frame], having: str) -> str:
    """Read what is written up to the next turn-complete with a header *having*."""
    text = ""
    async for frame in frames:
        for record in frame.records:
            if is_control(record, "turn-complete") and having in dict(record["headers"]):
                return text
            text += delta_of(record)
    raise AssertionError(text)


async def test_a_wait_that_is_made_in_one_process_and_awaited_in_another_is_ended_by_a_third(
    clients: list[Client],
) -> None:
    one, two, three = clients
    run = (await one.create("wait", task="nobody")).body["runId"]
    made = await one.call("POST", f"/api/v1/runs/{run}/session-streams/wait", {"session": "wait", "io": "in"})
    path = f"/api/v1/waitpoints/tokens/{made.body['waitpointId']}"
    waiting = asyncio.create_task(two.call("GET", path, Timeout_Seconds="30"))
    await asyncio.sleep(0.2)
    began = anyio.current_time()
    assert (await three.append("wait", "x")).status == 200
    answer = await waiting
    assert (answer.body["status"], answer.body["output"]) == ("COMPLETED", "x")
    assert anyio.current_time() - began < 2


async def test_a_wait_and_its_record_that_race_in_two_processes_always_meet(clients: list[Client]) -> None:
    one, two, three = clients
    run = (await one.create("race", task="nobody")).body["runId"]
    known = -1
    for number in range(20):
        body = {"session": "race", "io": "in", "lastSeqNum": known}
        made, appended = await asyncio.gather(
            one.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body), two.append("race", f"{number}")
        )
        path = f"/api/v1/waitpoints/tokens/{made.body['waitpointId']}"
        answer = (await three.call("GET", path, Timeout_Seconds="10")).body
        known = appended.body["seq"]
        assert (answer["status"], answer["output"], answer["seq"]) == ("COMPLETED", f"{number}", known)


async def test_a_wait_times_out_after_the_process_that_made_it_has_died(
    clients: list[Client], servers: list[ServerProcess]
) -> None:
    one, two, _ = clients
    run = (await one.create("timeout", task="nobody")).body["runId"]
    body = {"session": "timeout", "io": "in", "timeout": "2s"}
    made = await one.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)
    servers[0].kill()
    path = f"/api/v1/waitpoints/tokens/{made.body['waitpointId']}"
    answer = await two.call("GET", path, Timeout_Seconds="30")
    servers[0].start()
    assert (answer.body["status"], answer.body["outputIsError"]) == ("TIMED_OUT", True)


async def test_of_engines_that_begin_through_several_processes_at_once_one_does(clients: list[Client]) -> None:
    for number in range(10):
        run = (await clients[0].create(f"begin-{number}", task="nobody")).body["runId"]
        path, body = f"/engine/v1/runs/{run}/attempts/start", {"attempt": 1}
        answers = await asyncio.gather(*(client.call("POST", path, body) for client in clients * 2))
        refused = [answer.body["code"] for answer in answers if answer.status == 409]
        assert refused == ["attempt_begun"] * 5
        (begun,) = [answer.body for answer in answers if answer.status == 200]
        assert (begun["attempt"], begun["epoch"]) == (1, 1)


async def test_a_run_begun_through_one_process_is_refused_by_all_once_another_has_replaced_it(
    clients: list[Client],
) -> None:
    one, two, three = clients
    run = (await one.create("stale", task="nobody")).body["runId"]
    path = f"/engine/v1/runs/{run}"
    epochs = [(await client.call("POST", f"{path}/attempts/start", {"attempt": 1})).status for client in clients]
    assert epochs == [200, 409, 409]
    body = {"records": [{"data": "x"}]}
    for client in clients:
        assert (await client.call("POST", f"{path}/out/append", body, X_Session_Epoch="1")).status == 200
    assert (await two.call("POST", f"{path}/attempts/start", {"attempt": 2})).body["epoch"] == 2
    for client in clients:
        for what, given in (("out/append", body), ("heartbeat", None), ("attempts/complete", {"status": "CANCELED"})):
            late = await client.call("POST", f"{path}/{what}", given, X_Session_Epoch="1")
            assert (late.status, late.body["code"]) == (409, "stale_run")
    done = {"status": "COMPLETED_SUCCESSFULLY"}
    assert (await three.call("POST", f"{path}/attempts/complete", done, X_Session_Epoch="2")).status == 200
