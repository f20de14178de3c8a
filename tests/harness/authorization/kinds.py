"""The kinds of credentials, and what the holder of each may do."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

import attrs

from harness.authorization import signing
from harness.authorization.rights import EVERYTHING, NOTHING
from harness.authorization.world import (
    CHAT,
    CURRENT_KEY,
    PAGE,
    RIGHT,
    STALE,
    World,
)
from harness.in_process import ENVIRONMENT, OTHER_ENVIRONMENT
from sessions_core.domain.channel import Io
from sessions_core.domain.ids import EnvironmentId

_HOUR: Final = timedelta(hours=1)


class Form(Enum):
    """What a credential is."""

    ROOT = "a root key"
    KEY = "an additional key"
    TOKEN = "a token"
    DIRECT = "a direct writer's token"
    NONE = "no credential"


class Use(Enum):
    """How often a token is good for a change."""

    OFTEN = "often"
    ONCE = "once"
    NEVER_AGAIN = "it was good for one"


@attrs.frozen
class Stream:
    """What a direct writer's token is for."""

    subject: str
    io: Io
    is_over: bool = False


@attrs.frozen(kw_only=True)
class Kind:
    """One kind of credential.

    Attributes:
        make: Returns the header ``Authorization``; None leaves it out.
        holds: Its rights, in the environment it belongs to.
        works: Whether it is a credential at all, here and now.
        stream: Of a direct writer's token.
        install: Prepares the world for it.
    """

    name: str
    form: Form
    make: Callable[[World], Awaitable[str | None]]
    holds: frozenset[str] = NOTHING
    works: bool = True
    is_foreign: bool = False
    use: Use = Use.OFTEN
    stream: Stream | None = None
    install: Callable[[World], Awaitable[None]] | None = None

    @property
    def environment(self) -> EnvironmentId:
        """Where it belongs."""
        return OTHER_ENVIRONMENT if self.is_foreign else ENVIRONMENT


async def install(world: World, kinds: Iterable[Kind]) -> None:
    """Prepare *world* for *kinds*."""
    for kind in kinds:
        if kind.install is not None:
            await kind.install(world)


def _as_is(value: str | None) -> Callable[[World], Awaitable[str | None]]:
    async def make(_: World) -> str | None:
        return value

    return make


def nobody(name: str, value: str | None) -> Kind:
    return Kind(name=name, form=Form.NONE, make=_as_is(value), works=False)


def root(name: str, key: str, **more: Any) -> Kind:
    return Kind(name=name, form=Form.ROOT, make=_as_is(f"Bearer {key}"), holds=EVERYTHING, **more)


def key(
    name: str,
    scopes: Iterable[str],
    holds: frozenset[str],
    *,
    life: timedelta | None = None,
    is_revoked: bool = False,
    **more: Any,
) -> Kind:
    """An additional key; ids in its scopes are filled in."""
    value = "tr_dev_sk_" + "".join(filter(str.isalnum, name.title())).ljust(24, "0")[:24]
    texts = tuple(scopes)

    async def add(world: World) -> None:
        store, names = world.site.sessions.environments, world.names
        ends = None if life is None else datetime.now(UTC) + life
        filled = [text.format_map(names) for text in texts]
        environment = OTHER_ENVIRONMENT if more.get("is_foreign") else ENVIRONMENT
        added = await store.add_key(environment, value, filled, expires_at=ends)
        if is_revoked:
            await store.revoke_key(environment, added.id)

    return Kind(name=name, form=Form.KEY, make=_as_is(f"Bearer {value}"), holds=holds, install=add, **more)


def _claims(world: World, scopes: Iterable[str], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a token that works claims, but for *changes*; ``...`` leaves a claim out."""
    now = int(time.time())
    content = {
        "sub": ENVIRONMENT,
        "pub": True,
        "scopes": [text.format_map(world.names) for text in scopes],
        "iat": now,
        "exp": now + 3600,
        "iss": "https://id.trigger.dev",
        "aud": "https://api.trigger.dev",
        **changes,
    }
    return {name: value for name, value in content.items() if value is not ...}


def token(
    name: str,
    scopes: Iterable[str],
    holds: frozenset[str] = NOTHING,
    *,
    sign: Callable[[Mapping[str, Any]], str] = lambda claims: signing.signed(claims, CURRENT_KEY),
    claims: Mapping[str, Any] | None = None,
    **more: Any,
) -> Kind:
    """A token that its holder has signed; ids in its scopes are filled in."""
    texts = tuple(scopes)

    async def make(world: World) -> str:
        return f"Bearer {sign(_claims(world, texts, claims or {}))}"

    return Kind(name=name, form=Form.TOKEN, make=make, holds=holds, **more)


def forged(
    name: str, *, sign: Callable[[Mapping[str, Any]], str] | None = None, claims: Mapping[str, Any] | None = None
) -> Kind:
    """A token that says it may do everything, and is none."""
    more: dict[str, Any] = {} if sign is None else {"sign": sign}
    return token(name, ["admin"], claims=claims, works=False, **more)


def direct(
    name: str, stream: Stream, *, key: str = CHAT, life: timedelta = _HOUR, works: bool = True, is_foreign: bool = False
) -> Kind:
    """A direct writer's token as the server signs it."""
    environment = OTHER_ENVIRONMENT if is_foreign else ENVIRONMENT

    async def make(world: World) -> str:
        token = await world.direct(environment, key, stream.io, STALE if stream.is_over else RIGHT, life)
        return f"Bearer {token}"

    return Kind(name=name, form=Form.DIRECT, make=make, stream=stream, works=works, is_foreign=is_foreign)


def direct_by_hand(name: str, *, signed_with: str = CURRENT_KEY, works: bool = False, **changes: Any) -> Kind:
    """A direct writer's token as a holder of a root key signs it."""
    content = {
        "use": "direct",
        "pub": ...,
        "key": CHAT,
        "io": "out",
        "run": 1,
        "epoch": RIGHT,
        "scopes": ...,
        **changes,
    }

    async def make(world: World) -> str:
        return f"Bearer {signing.signed(_claims(world, [], content), signed_with)}"

    return Kind(name=name, form=Form.DIRECT, make=make, stream=Stream("chat", Io.OUT), works=works)


def asked(name: str, holds: frozenset[str], ask: Callable[[World], Awaitable[str]]) -> Kind:
    """A token that the server gives out when it is asked."""

    async def make(world: World) -> str:
        return f"Bearer {world.asked_for[name]}"

    async def remember(world: World) -> None:
        world.asked_for[name] = await ask(world)

    return Kind(name=name, form=Form.TOKEN, make=make, holds=holds, install=remember)


async def ask_for_session_token(world: World) -> str:
    body = {"type": "t", "taskIdentifier": "one", "triggerConfig": {"basePayload": {}}, "externalId": CHAT}
    answer = await world.site.client(CURRENT_KEY).call("POST", "/api/v1/sessions", body)
    token: str = answer.body["publicAccessToken"]
    return token


async def ask_for_page_token(world: World) -> str:
    anybody = world.site.client("")
    answer = await anybody.call("POST", "/page/tokens", {"session": PAGE}, Sec_Fetch_Site="same-origin")
    token: str = answer.body["token"]
    return token


def used_up(name: str, scopes: Iterable[str], holds: frozenset[str]) -> Kind:
    """A one-time token whose one change has been made."""
    kind = token(name, scopes, holds, claims={"otu": True, "jti": "used"}, use=Use.NEVER_AGAIN)

    async def use(world: World) -> None:
        header = await kind.make(world)
        world.asked_for[name] = header or ""
        path = f"{world.site.address}/realtime/v1/sessions/{CHAT}/in/append"
        async with world.site.http.post(path, data="used", headers={"Authorization": header or ""}) as answer:
            assert answer.status == 200

    async def make(world: World) -> str:
        return world.asked_for[name]

    return attrs.evolve(kind, make=make, install=use)
