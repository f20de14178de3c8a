"""Nothing crosses an environment: two organizations with two environments each, that do the same things under the same names at once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from harness.dealings import BY_HAND, compare, create_session, create_wait, path_of
from harness.in_process import Site, open_site
from harness.isolation import drive
from harness.tenants import NAMES, Tenant, open_tenants
from sessions_core.domain.environment import RootKey
from sessions_server.auth import tokens
from sessions_server.bundled import agents
from sessions_server.route import Route
from sessions_server.table import ROUTES

pytestmark = pytest.mark.timeout(180)

SEED: Final = 20261121
STEPS: Final = 12
CHAT: Final = NAMES[0]
ID: Final = "{}"
BODIES: Final[dict[str, Any]] = {
    "update_session": {"tags": ["guessed"]},
    "close_session": {"reason": "guessed"},
    "end_and_continue": {"callingRunId": "run_x", "reason": "manual"},
    "create_wait": {"session": CHAT, "io": "in"},
    "start_attempt": {"attempt": 1},
    "append_run_out": {"records": [{"data": "guessed"}]},
    "complete_attempt": {"status": "CANCELED"},
}


async def test_nothing_of_one_environment_shows_in_another(profile: str, tmp_path: Path) -> None:
    async with open_site(profile, tmp_path, agents=agents) as site:
        print(f"{profile}: {await drive(site, seed=SEED, steps=STEPS)}")
        files = {path.name.partition(".")[0] for path in tmp_path.rglob("*")}
    assert files <= {"sessions", "encryption"}, "no file is called after what is in it"


@pytest.fixture
async def tenants(site: Site) -> AsyncIterator[list[Tenant]]:
    """Four, each with a session of the same name, a run of it, and a wait of that."""
    async with open_tenants(site, SEED) as opened:
        for tenant in opened:
            await create_session(tenant, CHAT, BY_HAND)
            await create_wait(tenant, CHAT, "key")
        yield opened


def guesses(route: Route, me: Tenant, other: Tenant) -> Iterator[tuple[str, str, Any]]:
    """Yield path, guessed id and body: another's id in each place of *route* that takes one, and one's own in all others."""
    own = {"session": next(iter(me.sessions)), "run": me.runs[0], "waitpoint": me.waitpoints[0], "io": "in"}
    others = {"session": next(iter(other.sessions)), "run": other.runs[0], "waitpoint": other.waitpoints[0]}
    body = BODIES.get(route.name or "", {})
    for name, guessed in others.items():
        if f"{{{name}}}" in route.path:
            yield route.path.format(**own | {name: ID}), guessed, body
    for member, kind in (("callingRunId", "run"), ("session", "session")):
        if member in body or (member, route.name) == ("callingRunId", "close_session"):
            yield route.path.format(**own), others[kind], body | {member: ID}


def credentials(tenant: Tenant) -> list[str]:
    """Return the root key, and a token that may do everything in the tenant's environment."""
    claims = {"sub": tenant.environment.id, "pub": True, "scopes": ["admin"], "iat": 0, "exp": 4_000_000_000}
    return [tenant.key, tokens.sign(claims, RootKey(value=tenant.key))]


async def state_of(tenant: Tenant) -> list[Any]:
    """Return all that is told of the tenant's session."""
    path = path_of(CHAT)
    return [await tenant.call("GET", path + rest) for rest in ("", "/runs", "/waitpoints", "/channels")]


async def test_an_id_of_another_environment_is_answered_on_every_route_like_one_that_nobody_has(
    tenants: list[Tenant],
) -> None:
    me, neighbour, stranger = tenants[0], tenants[1], tenants[2]
    count = 0
    for other in (neighbour, stranger):
        before = await state_of(other)
        for route in ROUTES:
            for path, guessed, body in guesses(route, me, other):
                for credential in credentials(me):
                    sent = json.dumps(body) if route.cap is not None else None
                    answer = await compare(
                        me, route.method, path, guessed, sent, credential=credential, X_Session_Epoch="1"
                    )
                    assert answer.status >= 400, (route.method, path)
                    count += 1
        assert await state_of(other) == before
    assert count >= 100


async def test_a_credential_opens_its_own_environment_alone(tenants: list[Tenant]) -> None:
    for me in tenants:
        for credential in credentials(me):
            seen = (await me.plain.client(credential).call("GET", path_of(CHAT))).body
            assert {seen["id"]} == me.sessions
            assert seen["metadata"] == {"note": me.marker}
    me, other = tenants[:2]
    claims = {"sub": other.environment.id, "pub": True, "scopes": ["admin"], "iat": 0, "exp": 4_000_000_000}
    forged = me.plain.client(tokens.sign(claims, RootKey(value=me.key)))
    assert (await forged.call("GET", path_of(CHAT))).status == 401


@pytest.mark.parametrize("profile", ["memory"])
async def test_the_id_of_a_request_does_not_count_the_requests_of_others(site: Site) -> None:
    ids = [(await site.client("").call("GET", "/healthz")).headers["X-Request-Id"] for _ in range(3)]
    process, numbers = (
        {name.rpartition("-")[0] for name in ids},
        sorted(int(name.rpartition("-")[2], 16) for name in ids),
    )
    assert len(process) == 1, "which process answered may be told"
    assert numbers[2] - numbers[0] > 1_000
