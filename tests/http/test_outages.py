"""A system of the ``scale`` profile goes away under a running server: what has to do with it says so, the rest goes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from time import monotonic

import attrs
import pytest

from harness.backends import open_backends
from harness.clickhouse import ClickHouseServer
from harness.client import Answer, Client
from harness.in_process import ENVIRONMENT, Site, open_site_on
from harness.redis import RedisServer
from sessions_adapters.clickhouse import ClickHouseConfig, ClickHouseIndexWriter, migrate, open_database
from sessions_adapters.profiles import CLICKHOUSE, SCALE, STORE
from sessions_core.ports.session_index import IndexRow

pytestmark = [pytest.mark.needs_postgres, pytest.mark.needs_redis, pytest.mark.needs_s2, pytest.mark.kill]

FAILURES = 'sessions_events_total{event="SystemFailed"}'
LISTS = ("/api/v1/sessions", "/api/v1/sessions?filter%5Btags%5D=one")


# --- ClickHouse ---


@pytest.fixture
def clickhouse(tmp_path: Path) -> Generator[ClickHouseServer]:
    """A ClickHouse of our own, which a test may kill."""
    (tmp_path / "clickhouse").mkdir()
    with ClickHouseServer(tmp_path / "clickhouse") as server:
        yield server


@pytest.fixture
async def listing_site(clickhouse: ClickHouseServer, tmp_path: Path) -> AsyncGenerator[Site]:
    """A server that lists from :func:`clickhouse`."""
    await migrate(ClickHouseConfig(url=clickhouse.url))
    async with open_backends(SCALE, tmp_path) as backends:
        listing = attrs.evolve(backends, index=CLICKHOUSE, clickhouse_url=clickhouse.url)
        async with open_site_on(listing) as site:
            yield site


async def feed(site: Site, clickhouse: ClickHouseServer, name: str) -> None:
    """Write the row of a session into the index, as replication does."""
    session = await site.sessions.ports.sessions.find(ENVIRONMENT, name)
    assert session is not None
    async with open_database(ClickHouseConfig(url=clickhouse.url)) as database:
        await ClickHouseIndexWriter(database).write([IndexRow(session, 1)])


async def listed(client: Client) -> list[tuple[int, list[str]]]:
    """Return status and external ids of each list."""
    answers = [await client.call("GET", path) for path in LISTS]
    return [(answer.status, [row["externalId"] for row in answer.body["data"]]) for answer in answers]


@pytest.mark.parametrize("index", [STORE, CLICKHOUSE])
async def test_a_server_begins_without_clickhouse_and_lists_if_that_is_left_to_the_store(
    tmp_path: Path, index: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nowhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    async with (
        open_backends(SCALE, tmp_path) as backends,
        open_site_on(attrs.evolve(backends, index=index, clickhouse_url=nowhere)) as site,
    ):
        client = site.client()
        assert [answer.status for answer in await all_but_lists(client, "s")] == [201, *[200] * 6]
        answers = [await client.call("GET", path) for path in LISTS]
    assert [answer.status for answer in answers] == ([200] * 2 if index == STORE else [503] * 2)
    if index == STORE:
        assert [row["externalId"] for row in answers[0].body["data"]] == ["s"]


@pytest.mark.needs_clickhouse
async def test_while_clickhouse_is_down_only_lists_say_so_and_they_work_when_it_is_back(
    listing_site: Site, clickhouse: ClickHouseServer
) -> None:
    client = listing_site.client()
    await client.create("before", tags=["one"])
    await feed(listing_site, clickhouse, "before")
    assert await listed(client) == [(200, ["before"])] * 2

    clickhouse.kill()
    begun = monotonic()
    for path in LISTS:
        refused = await client.call("GET", path)
        assert (refused.status, refused.body) == (
            503,
            {"error": "The session index is unavailable; try again", "code": "index_unavailable"},
        )
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["X-Request-ID"]
    assert monotonic() - begun < 10
    assert [answer.status for answer in await all_but_lists(client, "meanwhile")] == [201, 200, 200, 200, 200, 200, 200]

    clickhouse.start()
    await feed(listing_site, clickhouse, "meanwhile")
    assert [answer[0] for answer in await listed(client)] == [200, 200]
    assert (await listed(client))[0][1] == ["meanwhile", "before"]


async def all_but_lists(client: Client, name: str) -> list[Answer]:
    """Do with a session all that can be done without a list."""
    path = f"/api/v1/sessions/{name}"
    return [
        await client.create(name),
        await client.call("GET", path),
        await client.append(name, "hello"),
        await client.call("GET", f"/realtime/v1/sessions/{name}/in/records"),
        await client.call("GET", f"{path}/runs"),
        await client.call("GET", "/readyz"),
        await client.call("POST", f"{path}/close", {}),
    ]


# --- Redis ---


@pytest.fixture
def redis(tmp_path: Path) -> Generator[RedisServer]:
    """A Redis of our own, which a test may kill."""
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def waking_site(redis: RedisServer, tmp_path: Path) -> AsyncGenerator[Site]:
    """A server whose wake-ups go through :func:`redis`."""
    async with (
        open_backends(SCALE, tmp_path) as backends,
        open_site_on(attrs.evolve(backends, redis_url=redis.url)) as site,
    ):
        yield site


async def wait_for_next(client: Client, name: str, run: str, last: int) -> str:
    """Begin a wait for the record after *last*; return its waitpoint."""
    body = {"session": name, "io": "in", "lastSeqNum": last}
    answer = await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)
    assert answer.status == 200, answer
    return str(answer.body["waitpointId"])


async def test_appends_and_waits_go_on_while_redis_is_down(waking_site: Site, redis: RedisServer) -> None:
    client = waking_site.client()
    run = (await client.create("s")).body["runId"]
    last = (await client.append("s", "known")).body["seq"]
    last = await wake(client, [await wait(client, run, last), await wait(client, run, last)], last)
    before = await wait(client, run, last)
    assert FAILURES not in (await client.call("GET", "/metrics")).body
    redis.kill()
    last = await wake(client, [before, await wait(client, run, last)], last)
    last = await wake(client, [await wait(client, run, last)], last)
    assert FAILURES in (await client.call("GET", "/metrics")).body
    redis.start()
    await wake(client, [await wait(client, run, last)], last)
    assert [record["data"] for record in await client.records("s", "in")] == ["known", *["news"] * 20]


async def wait(client: Client, run: str, last: int) -> str:
    """Begin a wait for the record after *last*; return its waitpoint."""
    body = {"session": "s", "io": "in", "lastSeqNum": last}
    answer = await client.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)
    assert answer.status == 200, answer
    return str(answer.body["waitpointId"])


async def wake(client: Client, waitpoints: list[str], last: int) -> int:
    """Append five records behind *last*, of which the first must end every one of *waitpoints*; return the last seq.

    Without Redis the sweep ends them, within a second or two.
    """
    path = "/api/v1/waitpoints/tokens/"
    polls = [asyncio.create_task(client.call("GET", path + name, Timeout_Seconds="15")) for name in waitpoints]
    answers = [await client.append("s", "news") for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 5
    for ended in await asyncio.gather(*polls):
        assert (ended.body["status"], ended.body["seq"]) == ("COMPLETED", last + 1)
    return int(answers[-1].body["seq"])
