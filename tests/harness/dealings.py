"""What a tenant does on a server that it shares with others: every route, and now and then with an id of another's.

Each of :data:`DEALINGS` is one thing that is done, for a tenant among its neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote, urlencode

import attrs

from harness import attempts, direct
from harness.client import Answer, message
from harness.direct import Credentials
from harness.tenants import NAMES, SHARED_TAG, Neighbours, Tenant
from sessions_core.domain.channel import Io
from sessions_server.data_plane.names import basin_of, stream_of

LIST: Final = "/api/v1/sessions"
PARTS: Final = tuple(f"part-{number}" for number in range(6))
IDEMPOTENCY_KEYS: Final = ("key-1", "key-2", "key-3")
CARRIED_OUT: Final = "echo"
BY_HAND: Final = "nobody carries this out"


async def create_session(tenant: Tenant, name: str | None, task: str) -> dict[str, Any]:
    answer = await tenant.client.create(
        name,
        task,
        tags=[SHARED_TAG, tenant.marker],
        metadata={"note": tenant.marker},
        triggerConfig={"basePayload": {"note": tenant.marker}, "tags": [tenant.marker]},
    )
    assert answer.status in (200, 201), answer
    tenant.sessions.add(answer.body["id"])
    tenant.runs.append(answer.body["runId"])
    created: dict[str, Any] = answer.body
    return created


def _name(tenant: Tenant) -> str:
    return tenant.chance.choice(tenant.names)


def path_of(name: str, rest: str = "") -> str:
    return f"{LIST}/{quote(name, safe='')}{rest}"


async def create(_: Neighbours, tenant: Tenant) -> None:
    """Get a session that is there, or a new one without a name."""
    name = tenant.chance.choice((None, *NAMES))
    task = BY_HAND if name is None else (CARRIED_OUT, BY_HAND)[NAMES.index(name) % 2]
    await create_session(tenant, name, task)


async def append(_: Neighbours, tenant: Tenant) -> None:
    """Append with a part id that others use on channels of the same name."""
    await say(tenant, _name(tenant), tenant.chance.choice(PARTS))


async def say(tenant: Tenant, name: str, part: str) -> None:
    text = message(f"{tenant.marker} says {part}")
    _acknowledged(tenant, name, Io.IN, part, await tenant.client.append(name, text, part))


async def append_out(_: Neighbours, tenant: Tenant) -> None:
    """Do the same on ``out``."""
    name, part = _name(tenant), tenant.chance.choice(PARTS)
    answer = await tenant.client.append(name, f"{tenant.marker} writes {part}", part, io="out")
    _acknowledged(tenant, name, Io.OUT, part, answer)


def _acknowledged(tenant: Tenant, name: str, io: Io, part: str, answer: Answer) -> None:
    assert answer.status == 200, answer
    _placed(tenant, name, io, part, answer.body["seq"])


def _placed(tenant: Tenant, name: str, io: Io, part: str, seq: int) -> None:
    first = tenant.parts.setdefault((tenant.channel(name, io), part), seq)
    assert seq == first, "a part id that comes again is the same record"


async def read(_: Neighbours, tenant: Tenant) -> None:
    """Read a part of a channel."""
    name, io = quote(_name(tenant), safe=""), tenant.chance.choice(list(Io))
    query = urlencode({"afterEventId": tenant.chance.randrange(5), "limit": tenant.chance.randint(1, 20)})
    await tenant.call("GET", f"/realtime/v1/sessions/{name}/{io}/records?{query}")


async def look(_: Neighbours, tenant: Tenant) -> None:
    """Look at everything that is told of a session, and change it."""
    path, run = path_of(_name(tenant)), tenant.chance.choice(tenant.runs)
    for rest in ("", "/runs", "/waitpoints", "/channels"):
        await tenant.call("GET", path + rest)
    await tenant.call("GET", f"/api/v1/runs/{run}")
    await tenant.call("PATCH", path, {"tags": [SHARED_TAG, tenant.marker], "metadata": {"note": tenant.marker}})


async def wait(neighbours: Neighbours, tenant: Tenant) -> None:
    """Wait under an idempotency key that others use as well."""
    created = await create_wait(tenant, tenant.chance.choice(NAMES), tenant.chance.choice(IDEMPOTENCY_KEYS))
    neighbours.begin(_poll(tenant, created["waitpointId"]))


async def create_wait(tenant: Tenant, name: str, key: str) -> dict[str, Any]:
    run = tenant.chance.choice(tenant.runs)
    body = {"session": name, "io": "in", "idempotencyKey": key, "tags": [tenant.marker], "timeout": "1h"}
    created = await tenant.call("POST", f"/api/v1/runs/{run}/session-streams/wait", body)
    tenant.cached.setdefault(key, []).append(created["isCached"])
    tenant.waitpoints.append(created["waitpointId"])
    return created


async def _poll(tenant: Tenant, waitpoint: str) -> None:
    path = f"/api/v1/waitpoints/tokens/{waitpoint}"
    while (found := await tenant.call("GET", path, Timeout_Seconds="10"))["status"] == "WAITING":
        pass
    assert tenant.marker in found["output"], found


async def walk(neighbours: Neighbours, tenant: Tenant) -> None:
    """List with any filter, from any cursor: one's own or another's."""
    chance = tenant.chance
    cursors = [*tenant.cursors, *neighbours.other_than(tenant).cursors]
    wanted = {"page[size]": chance.randint(1, 9), **dict(chance.sample(FILTERS, chance.randrange(3)))}
    if cursors and chance.random() < 0.7:
        wanted[chance.choice(("page[after]", "page[before]"))] = chance.choice(cursors)
    page = await tenant.call("GET", f"{LIST}?{urlencode(wanted)}")
    for cursor in page["pagination"].values():
        tenant.take_cursor(cursor)


FILTERS: Final = (
    ("filter[type]", "chat.agent,other"),
    ("filter[tags]", f"{SHARED_TAG},other"),
    ("filter[taskIdentifier]", f"{CARRIED_OUT},{BY_HAND}"),
    ("filter[externalId]", NAMES[1]),
    ("filter[status]", "ACTIVE,CLOSED"),
    ("filter[status]", "EXPIRED"),
    ("filter[createdAt][period]", "1d"),
    ("filter[createdAt][from]", "2020-01-01"),
    ("filter[createdAt][to]", "2999-01-01"),
)


async def hand_over(_: Neighbours, tenant: Tenant) -> None:
    """Hand a session over to a new run."""
    path = path_of(_name(tenant))
    body = {"callingRunId": (await tenant.call("GET", path))["currentRunId"], "reason": "manual"}
    tenant.runs.append((await tenant.call("POST", path + "/end-and-continue", body))["runId"])


async def close(_: Neighbours, tenant: Tenant) -> None:
    """Close a session, which then takes nothing."""
    name = (await create_session(tenant, None, BY_HAND))["id"]
    closed = await tenant.call("POST", path_of(name, "/close"), {"reason": f"for {tenant.marker}"})
    assert closed["closedReason"] == f"for {tenant.marker}"
    assert (await tenant.client.append(name, tenant.marker)).status == 409


async def mint(_: Neighbours, tenant: Tenant) -> None:
    """Get a token for an external id that others have too, for one use or several."""
    name, once = _name(tenant), tenant.chance.random() < 0.5
    scopes = [f"{action}:sessions:{name}" for action in ("read", "write")]
    body = {"scopes": scopes, "oneTimeUse": once, "realtime": {"note": tenant.marker}}
    holder = tenant.site.client((await tenant.call("POST", "/api/v1/auth/public-tokens", body))["token"])
    part = tenant.chance.choice(PARTS)
    _acknowledged(tenant, name, Io.IN, part, await holder.append(name, message(f"{tenant.marker} says {part}"), part))
    assert (await holder.append(name, message(tenant.marker))).status == (401 if once else 200)
    assert (await holder.call("GET", path_of(name))).status == 200
    assert (await tenant.call("POST", "/api/v1/auth/jwt/claims"))["sub"] == tenant.environment.id


async def carry_out(_: Neighbours, tenant: Tenant) -> None:
    """Be the engine of a run, from its beginning to its end."""
    created = await create_session(tenant, None, BY_HAND)
    begun = await attempts.begin(tenant.client, created["runId"])
    assert begun.begun["payload"]["note"] == tenant.marker
    assert (await begun.call("heartbeat")).status == 200
    assert (await begun.write(tenant.marker, turnComplete={"lastSeqNum": -1})).status == 200
    await tenant.client.records(created["id"], "out")
    assert (await begun.complete()).status == 200


async def write_directly(neighbours: Neighbours, tenant: Tenant) -> None:
    """Write and read a stream as S2's clients do, and try the basin of another."""
    name, io = _name(tenant), tenant.chance.choice(list(Io))
    issued = await tenant.client.call("PUT", f"/realtime/v1/sessions/{quote(name, safe='')}/{io}")
    assert issued.status == 202, issued
    tenant.streams.add((issued.headers["X-S2-Basin"], issued.headers["X-S2-Stream-Name"]))
    part = tenant.chance.choice(PARTS)
    own = Credentials(tenant.key, basin_of(tenant.environment.id), stream_of(tenant.channel(name, io)))
    envelope = f'{{"data":"{tenant.marker} streams","id":"{part}"}}'
    body = json.dumps({"records": [{"body": envelope}]}).encode()
    written = await direct.call(tenant.site, "POST", own, body, content_type="application/json")
    assert written.status == 200, written
    _placed(tenant, name, io, part, written.json["start"]["seq_num"])
    assert (await direct.call(tenant.site, "GET", own, query="?seq_num=0")).status == 200
    anothers = basin_of(neighbours.other_than(tenant).environment.id)
    refused, unknown = [
        await direct.call(tenant.site, "GET", attrs.evolve(own, basin=basin), query="?seq_num=0")
        for basin in (anothers, basin_of("env nobody"))
    ]
    assert (refused.status, refused.body) == (404, unknown.body)
    neighbours.guesses += 1


async def ask_for_anothers(neighbours: Neighbours, tenant: Tenant) -> None:
    """Guess an id of another tenant's, and one of nobody's: the answers are the same."""
    other, chance = neighbours.other_than(tenant), tenant.chance
    session = chance.choice(sorted(other.sessions))
    for path, guessed in (
        (LIST + "/{}", session),
        ("/realtime/v1/sessions/{}/out/records", session),
        ("/api/v1/runs/{}", chance.choice(other.runs)),
        ("/api/v1/waitpoints/tokens/{}", chance.choice(other.waitpoints)),
    ):
        assert (await compare(tenant, "GET", path, guessed)).status == 404
        neighbours.guesses += 1
    own = quote(f"filter[tags]={other.marker}", safe="=")
    assert (await tenant.call("GET", f"{LIST}?{own}"))["data"] == []


async def compare(tenant: Tenant, method: str, path: str, guessed: str, body: str | None = None, **more: str) -> Answer:
    """Ask for another tenant's id, which goes where *path* and *body* have braces, and for one that nobody has.

    Args:
        tenant: Who asks, over connections on which nothing is kept.
        method: Of the request.
        path: Where.
        guessed: The id.
        body: What is sent.
        more: Headers; ``credential`` stands for another one than the root key.

    Raises:
        AssertionError: The answers differ by more than the id.
    """
    client = tenant.plain.client(more.pop("credential", tenant.key))
    unknown = guessed[:-8] + "0" * 8
    answers = [
        await client.call(method, path.replace("{}", name), body and body.replace("{}", name), **more)
        for name in (guessed, unknown)
    ]
    told, not_told = ((answer.status, json.dumps(answer.body)) for answer in answers)
    assert (told[0], told[1].replace(guessed, unknown)) == not_told, (method, path, answers)
    return answers[0]


DEALINGS: Final[tuple[Callable[[Neighbours, Tenant], Awaitable[None]], ...]] = (
    *(append,) * 5,
    *(append_out,) * 2,
    *(wait,) * 2,
    *(walk,) * 3,
    *(write_directly,) * 2,
    *(create, read, look, hand_over, close, mint, carry_out, ask_for_anothers),
)
