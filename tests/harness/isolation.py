"""Traffic of several tenants at once, and what has to be true of it afterwards.

All use the same external ids, tags, part ids and idempotency keys, and now and then ask for what is another's. By hand, at length:
``PYTHONPATH=tests python -m harness.isolation --profile postgres --steps 500 --seed 7``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp

from harness.dealings import (
    BY_HAND,
    CARRIED_OUT,
    DEALINGS,
    LIST,
    PARTS,
    create_session,
    create_wait,
    path_of,
    say,
)
from harness.in_process import Site, open_site
from harness.services import RUN
from harness.tenants import NAMES, QUIET, SHARED_TAG, Neighbours, Tenant, leaks_among, open_tenants, traces_in
from sessions_adapters.profiles import PROFILES
from sessions_core.domain.channel import Io
from sessions_core.domain.pagination import SessionFilter
from sessions_server.bundled import agents

WORKERS: Final = 3
"""So many requests each tenant has under way, beside its subscriptions."""
PATIENCE: Final = 60
LAST_PART: Final = "part-last"


async def work(neighbours: Neighbours, steps: int) -> None:
    """Let each worker of each tenant do so many things, all at once, and wait for what they have begun."""
    tenants = neighbours.tenants
    await _together(_settle_in(tenant) for tenant in tenants)
    async with _subscribed(tenants):
        await _together(_deal(neighbours, tenant, steps) for tenant in tenants for _ in range(WORKERS))
        await _together(say(tenant, name, LAST_PART) for tenant in tenants for name in tenant.names)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*neighbours.background)


async def _deal(neighbours: Neighbours, tenant: Tenant, steps: int) -> None:
    for _ in range(steps):
        await tenant.chance.choice(DEALINGS)(neighbours, tenant)


async def _together(tasks: Iterable[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(task)


async def _settle_in(tenant: Tenant) -> None:
    """Create the sessions that all have: each is the first of its name, whatever others have created."""
    for number, name in enumerate((*NAMES, QUIET)):
        created = await create_session(tenant, name, (CARRIED_OUT, BY_HAND)[number % 2])
        assert created["isCached"] is False, (tenant.environment.id, name)
    waitpoint = await create_wait(tenant, QUIET, "quiet")
    assert waitpoint["isCached"] is False


@asynccontextmanager
async def _subscribed(tenants: Sequence[Tenant]) -> AsyncIterator[None]:
    """Let every tenant follow both channels of all its sessions inside the block."""
    follow = [_follow(tenant, name, io) for tenant in tenants for name in (*NAMES, QUIET) for io in Io]
    tasks = [asyncio.create_task(each) for each in follow]
    try:
        yield
        assert not any(task.done() for task in tasks), "a subscription ended"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _follow(tenant: Tenant, name: str, io: Io) -> None:
    url = f"{tenant.site.address}/realtime/v1/sessions/{quote(name, safe='')}/{io}"
    headers = {"Authorization": f"Bearer {tenant.key}", "Timeout-Seconds": "600"}
    async with tenant.site.http.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=None)) as response:
        assert response.status == 200
        async for chunk in response.content.iter_any():
            tenant.take(chunk)


# --- What has to be true afterwards ---


async def check(neighbours: Neighbours) -> None:
    """Look at what the tenants have received and at what they have.

    Raises:
        AssertionError: Something of one shows in another, or is not what its owner has made of it.
    """
    for tenant in neighbours.tenants:
        await _check_channels(tenant)
        await _check_waits(tenant)
        await check_lists(tenant)
        assert tenant.received.count(tenant.marker.encode()) > len(NAMES), "it has not even received its own"
    leaks = leaks_among(neighbours.tenants)
    assert not leaks, leaks
    nobody = neighbours.tenants[0].plain.client("")
    for path in ("/metrics", "/openapi.json", "/readyz", "/healthz"):
        text = json.dumps((await nobody.call("GET", path)).body)
        traces = traces_in(text, neighbours.tenants)
        assert not traces, (path, traces)


async def _check_channels(tenant: Tenant) -> None:
    """Each part id that was acknowledged is on its channel once, where that was said, in its owner's words."""
    found = {}
    for name in (*NAMES, QUIET):
        for io in Io:
            for record in await tenant.client.records(name, io):
                if record.get("id") in (*PARTS, LAST_PART):
                    assert tenant.marker in json.dumps(record["data"]), record
                    assert (tenant.channel(name, io), record["id"]) not in found, record
                    found[tenant.channel(name, io), record["id"]] = record["seqNum"]
    assert found == tenant.parts, (tenant.environment.id, found.items() ^ tenant.parts.items())
    assert tenant.speaks or not any(channel.key == QUIET for channel, _ in found)


async def _check_waits(tenant: Tenant) -> None:
    """An idempotency key is new once in every environment, and what nobody wrote to is waited for still."""
    new = {key: answers.count(False) for key, answers in tenant.cached.items()}
    assert set(new.values()) == {1}, (tenant.environment.id, new)
    waiting = (await tenant.call("GET", path_of(QUIET, "/waitpoints")))["data"]
    assert len(waiting) == (not tenant.speaks), (tenant.environment.id, waiting)


async def check_lists(tenant: Tenant) -> None:
    """Lists, counts and tags show what the tenant has created, and no more."""
    index, environment = tenant.plain.sessions.ports.index, tenant.environment
    listed = await _listed(tenant)
    counted = await index.count(environment, SessionFilter(environment_id=environment.id))
    tags = set(await index.list_tags(environment))
    assert listed == tenant.sessions, (environment.id, listed ^ tenant.sessions)
    assert (counted, tags) == (len(tenant.sessions), {SHARED_TAG, tenant.marker}), (environment.id, counted, tags)


async def _listed(tenant: Tenant) -> set[str]:
    """Return the ids on all pages."""
    ids: set[str] = set()
    after: str | None = ""
    while after is not None:
        query = urlencode({"page[size]": 10, "filter[tags]": SHARED_TAG, "page[after]": after})
        page = await tenant.call("GET", f"{LIST}?{query}")
        ids |= {item["id"] for item in page["data"]}
        after = page["pagination"].get("next")
        tenant.take_cursor(after)
    return ids


async def drive(site: Site, *, seed: int, steps: int, settle: Callable[[], Awaitable[object]] | None = None) -> str:
    """Let tenants of *site* work side by side; return what came of it.

    Args:
        site: The server.
        seed: Decides what they do, though not what overtakes what.
        steps: How many things each of a tenant's workers does.
        settle: Waits until lists show all that is stored.

    Raises:
        AssertionError: Something of one shows in another.
    """
    async with open_tenants(site, seed) as tenants:
        neighbours = Neighbours(tenants)
        await work(neighbours, steps)
        if settle is not None:
            await settle()
        await check(neighbours)
        requests, records = (sum(counts) for counts in zip(*((t.requests, len(t.parts)) for t in tenants), strict=True))
    told = f"{requests} requests, {records} part ids, {neighbours.guesses} guesses at ids of others"
    return f"{len(tenants)} environments of {len({t.environment.organization_id for t in tenants})} organizations: {told}, leaks=0"


async def _main(profile: str, seed: int, steps: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        async with open_site(profile, Path(folder), agents=agents) as site:
            return await drive(site, seed=seed, steps=steps)


def main() -> None:
    """Do at length what the test does briefly."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--profile", choices=PROFILES, required=True)
    parser.add_argument("--steps", type=int, default=300, help="of each of a tenant's workers")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    with RUN:
        print(f"{given.profile}, seed {given.seed}: {asyncio.run(_main(given.profile, given.seed, given.steps))}")


if __name__ == "__main__":
    main()
