"""Tenants of one server: what each has received is kept, and searched for what belongs to another.

Each has an environment of its own and a *marker*, a text that is in all that it stores. The ids of the environments are such that
an external id could make one look like another wherever the two are joined by a colon, a slash or an escape.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import combinations
from typing import Any, Final

import aiohttp
import attrs

from harness.client import Client
from harness.in_process import Site
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.environment import Environment, EnvironmentType, RootKey
from sessions_core.domain.ids import AddressingKey, EnvironmentId, OrganizationId, ProjectId
from sessions_server.auth.tokens import peek_claims, signed_claims

HOMES: Final = (("org-1", "env"), ("org-1", "env:x"), ("org-2", "env/x"), ("org-2", "env%3Ax"))
"""Organizations and their environments."""
NAMES: Final = (
    "chat",
    "x:chat",
    "x/chat",
    "%3Ax:chat",
    "../env:x/chat",
    "chat:in}{env:x:chat",
    "ünï\U0001f980 chat",
)
"""External ids that every tenant uses: some spell the address of another tenant's channel, once joined to an environment's id."""
QUIET: Final = "quiet"
"""An external id that every tenant has, and to which one alone ever writes."""
SHARED_TAG: Final = "shared"
_MARKER: Final = re.compile(rb"mark-[0-9a-f]{16}")
_ID: Final = re.compile(rb"(?:session|run|waitpoint)_c[0-9a-z]{24}")
_TOKEN: Final = re.compile(rb"eyJ[\w-]+\.[\w-]+\.[\w-]+")


@attrs.define(eq=False)
class Tenant:
    """One environment, whoever has its root key, and what came of it.

    Attributes:
        plain: The server.
        site: The server over connections of the tenant's own: all that it is sent there is kept.
        speaks: Whether it is the one that writes to the quiet sessions.
        received: All that was sent to it there, and what was written in that in base64.
        requests: How many were answered.
        sessions: Those that it has created.
        parts: The seq of each part id that was acknowledged, by channel.
        cached: Per idempotency key, what each answer to a wait with it said of ``isCached``.
        streams: Names of basins and streams that it was given.
    """

    plain: Site
    environment: Environment
    key: str
    marker: str
    chance: random.Random
    speaks: bool
    site: Site = attrs.field(init=False)
    received: bytearray = attrs.field(init=False, factory=bytearray)
    requests: int = attrs.field(init=False, default=0)
    sessions: set[str] = attrs.field(init=False, factory=set)
    runs: list[str] = attrs.field(init=False, factory=list)
    waitpoints: list[str] = attrs.field(init=False, factory=list)
    cursors: list[str] = attrs.field(init=False, factory=list)
    parts: dict[tuple[Channel, str], int] = attrs.field(init=False, factory=dict)
    cached: dict[str, list[bool]] = attrs.field(init=False, factory=dict)
    streams: set[tuple[str, str]] = attrs.field(init=False, factory=set)

    @property
    def client(self) -> Client:
        """Calls with the root key."""
        return self.site.client(self.key)

    @property
    def names(self) -> tuple[str, ...]:
        """The external ids of the sessions that it writes to."""
        return (*NAMES, QUIET) if self.speaks else NAMES

    def channel(self, name: str, io: Io) -> Channel:
        """Return the address of a channel."""
        return Channel(self.environment.id, AddressingKey(name), io)

    def take(self, data: bytes) -> None:
        """Keep what was received."""
        self.received += data

    def take_cursor(self, cursor: str | None) -> None:
        """Keep a cursor, and what it says."""
        if cursor is not None:
            self.cursors.append(cursor)
            self.take(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        """Make a request that has to work; return the body of its answer."""
        answer = await self.client.call(method, path, body, **headers)
        assert answer.status in (200, 201), (method, path, answer)
        found: dict[str, Any] = answer.body
        return found

    def tokens(self) -> list[str]:
        """Return the tokens that it was given."""
        return [token.decode() for token in set(_TOKEN.findall(self.received))]

    def owns(self, token: str) -> bool:
        """Tell whether *token* is of its environment, and signed with its key."""
        claims = signed_claims(token, RootKey(value=self.key))
        return claims is not None and claims["sub"] == self.environment.id

    def seen(self) -> set[bytes]:
        """Return all ids that it has received, in tokens too."""
        claims = json.dumps([peek_claims(token) for token in self.tokens()])
        return set(_ID.findall(self.received)) | set(_ID.findall(claims.encode()))


@attrs.define(eq=False)
class Neighbours:
    """Tenants of one server.

    Attributes:
        background: What they have begun and not waited for.
        guesses: How often somebody asked for what is another's.
    """

    tenants: Sequence[Tenant]
    background: set[asyncio.Task[None]] = attrs.field(init=False, factory=set)
    guesses: int = attrs.field(init=False, default=0)

    def other_than(self, tenant: Tenant) -> Tenant:
        """Return one of the other tenants."""
        return tenant.chance.choice([other for other in self.tenants if other is not tenant])

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside what else is done."""
        self.background.add(asyncio.create_task(work))


@asynccontextmanager
async def open_tenants(site: Site, seed: int) -> AsyncIterator[list[Tenant]]:
    """Make the environments, each with a tenant that calls over connections of its own."""
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        yield [await _open(stack, site, home, chance, speaks=home == HOMES[0]) for home in HOMES]


async def _open(
    stack: AsyncExitStack, site: Site, home: tuple[str, str], chance: random.Random, *, speaks: bool
) -> Tenant:
    organization, name = home
    environment = Environment(
        id=EnvironmentId(name),
        organization_id=OrganizationId(organization),
        project_id=ProjectId("project"),
        type=EnvironmentType.DEVELOPMENT,
    )
    key = f"tr_dev_{chance.getrandbits(96):024x}"
    await site.sessions.environments.create(environment, key)
    marker = f"mark-{chance.getrandbits(64):016x}"
    tenant = Tenant(site, environment, key, marker, random.Random(chance.random()), speaks)
    http = await stack.enter_async_context(aiohttp.ClientSession(trace_configs=[_keeping(tenant)]))
    tenant.site = attrs.evolve(site, http=http)
    return tenant


def _keeping(tenant: Tenant) -> aiohttp.TraceConfig:
    """Return what keeps the headers and the bodies of all answers; of a body that is read bit by bit, its reader does."""

    async def take_headers(_: Any, __: Any, answered: aiohttp.TraceRequestEndParams) -> None:
        tenant.requests += 1
        tenant.take(b"\n".join(b": ".join(pair) for pair in answered.response.raw_headers))

    async def take_body(_: Any, __: Any, read: aiohttp.TraceResponseChunkReceivedParams) -> None:
        tenant.take(read.chunk)

    keeping = aiohttp.TraceConfig()
    keeping.on_request_end.append(take_headers)
    keeping.on_response_chunk_received.append(take_body)
    return keeping


def leaks_among(tenants: Sequence[Tenant]) -> list[str]:
    """Return what any of them received that is another's: markers, ids, tokens of another environment, streams."""
    found = []
    for tenant in tenants:
        markers = {marker.decode() for marker in _MARKER.findall(tenant.received)} - {tenant.marker}
        foreign = [token for token in tenant.tokens() if not tenant.owns(token)]
        found += [f"{tenant.environment.id} got {other}" for other in (*markers, *foreign)]
    for one, other in combinations(tenants, 2):
        both = (one.seen() & other.seen()) | (one.streams & other.streams)
        found += [f"{one.environment.id} and {other.environment.id} both got {thing!r}" for thing in both]
    return found


def traces_in(text: str, tenants: Iterable[Tenant]) -> list[str]:
    """Return what *text*, which is for everybody, says of any of them."""
    words = [word for tenant in tenants for word in (tenant.marker, tenant.key, *tenant.sessions, *tenant.runs)]
    names = [tenant.environment.id for tenant in tenants if not tenant.environment.id.isalpha()]
    return [word for word in (*words, *names, *NAMES[1:]) if word in text]
