"""What is asked about: two environments with sessions, runs and waits, all keys in all their states, and how that is watched.

The session that most credentials are about is ``team:chat``: its external id has a colon in it, and no session is called
``team``. Both environments have one of that name. Its run has begun a second time, so there is an epoch that is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import attrs

from harness.in_process import ENVIRONMENT, OTHER_ENVIRONMENT, OTHER_KEY, ROOT_KEY, Site, open_site
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.direct import Tenure
from sessions_core.domain.environment import Environment
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.domain.ids import AddressingKey, EnvironmentId, ExternalId
from sessions_core.domain.session import Session
from sessions_core.facade import Ports, Settings
from sessions_core.services.session_service import NewSession
from sessions_core.services.sweep import SweepConfig
from sessions_core.services.wait_service import WaitRequest
from sessions_server.config import Config

CHAT: Final = "team:chat"
ABSENT: Final = "team"
PAGE: Final = "page_" + "p" * 32
GHOST: Final = "session_" + "0" * 25
RIGHT, STALE = 2, 1
"""Epochs of every run."""

PAST_KEY: Final = ROOT_KEY
"""Rotated, and its grace is over."""
GRACE_KEY: Final = "tr_dev_" + "g" * 24
"""Rotated, but still within its grace."""
CURRENT_KEY: Final = "tr_dev_" + "n" * 24
FOREIGN_KEY: Final = OTHER_KEY

_LONG: Final = timedelta(hours=1)
_QUIET: Final = Settings(owns_data=True, sweep=SweepConfig(interval=_LONG, stall=_LONG, dispatch_grace=_LONG))
"""Nothing happens by itself."""
_UNLIMITED: Final = Config(environment_rate=None, token_rate=None, guess_rate=None)
"""Everything may be asked as often as it takes."""


@attrs.frozen(kw_only=True)
class Subject:
    """A session with its run and its wait, by their ids."""

    id: str
    key: str
    run: str
    waitpoint: str


@attrs.define(eq=False, slots=False)
class World:
    """A site with all of it.

    Attributes:
        asked_for: Credentials that a server gave out when it was asked, by their names.
    """

    site: Site
    chat: Subject
    page: Subject
    foreign: Subject
    asked_for: dict[str, str] = attrs.field(factory=dict)

    @property
    def ports(self) -> Ports:
        """What it is kept in."""
        return self.site.sessions.ports

    @cached_property
    def names(self) -> Mapping[str, str]:
        """What scopes and paths are made of."""
        subjects = {"chat": self.chat, "page": self.page, "foreign": self.foreign}
        ids = {
            f"{name}_{field}": value for name, each in subjects.items() for field, value in attrs.asdict(each).items()
        }
        return {**ids, "absent": ABSENT, "ghost": GHOST}

    @cached_property
    def marks(self) -> Mapping[EnvironmentId, tuple[str, ...]]:
        """Ids that nobody outside of an environment may see."""
        return {
            ENVIRONMENT: tuple(each for one in (self.chat, self.page) for each in (one.id, one.run, one.waitpoint)),
            OTHER_ENVIRONMENT: (self.foreign.id, self.foreign.run, self.foreign.waitpoint),
        }

    async def direct(self, environment: EnvironmentId, key: str, io: Io, epoch: int, lifetime: timedelta) -> str:
        """Return a credential of a direct writer, for the attempt that has or had *epoch*."""
        tenure = Tenure(run_version=1, last_epoch=epoch)
        channel = Channel(environment, AddressingKey(key), io)
        return await self.site.server.context.direct_tokens.sign(channel, tenure, lifetime)


@asynccontextmanager
async def open_world(profile: str, data: Path) -> AsyncGenerator[World]:
    """Make one."""
    async with open_site(profile, data, _UNLIMITED, settings=_QUIET) as site:
        store = site.sessions.environments
        home, abroad = await store.list_all()
        await store.rotate_root_key(home.id, GRACE_KEY, grace=timedelta(0))
        await store.rotate_root_key(home.id, CURRENT_KEY, grace=_LONG)
        yield World(
            site,
            chat=await _make(site, home, CHAT, "one"),
            page=await _make(site, home, PAGE, "two"),
            foreign=await _make(site, abroad, CHAT, "one"),
        )


async def _make(site: Site, environment: Environment, name: str, task: str) -> Subject:
    """Make a session with a record on each channel, whose run has begun twice and waits for a message."""
    sessions = site.sessions
    created = await sessions.sessions.create(environment, NewSession(task=task, external_id=ExternalId(name)))
    for attempt in (STALE, RIGHT):
        await sessions.attempts.begin(environment.id, created.run_id, attempt)
    for io in Io:
        await sessions.channels.append_text(created.session, io, "there")
    waiting = await sessions.waits.create(environment.id, created.run_id, WaitRequest(session=name, io=Io.IN))
    return Subject(id=created.session.id, key=name, run=created.run_id, waitpoint=waiting.waitpoint.id)


def whole_state(world: World) -> dict[str, Any]:
    """Return all that a world of the memory profile holds, but for the times when keys were used."""
    ports: Any = world.ports
    tables, environments = ports.sessions._tables, ports.environments
    return {
        "sessions": dict(tables.sessions),
        "names": dict(tables.names),
        "runs": dict(tables.runs),
        "history": {session: tuple(runs) for session, runs in tables.history.items()},
        "channels": {
            channel: (kept.first_seq, kept.next_seq, kept.guard, len(kept.parts))
            for channel, kept in ports.log._channels.items()
            if kept.guard != UNTOUCHED or kept.next_seq
        },
        "waits": dict(ports.waitpoints._rows),
        "waiting": {channel: tuple(members.ids) for channel, members in ports.wait_registry._channels.items()},
        "environments": dict(environments._environments),
        "grants": dict(environments._grants),
        "root keys": {environment: tuple(keys) for environment, keys in environments._root_keys.items()},
        "revoked": {key.id: key.revoked_at for key in environments._keys.values()},
        "used tokens": dict(ports.tokens._used),
    }


def part_of(state: dict[str, Any], environment: EnvironmentId) -> dict[str, Any]:
    """Return what of a whole state belongs to one environment."""
    return {
        "sessions": {key: row for key, row in state["sessions"].items() if row.environment.id == environment},
        "runs": {key: row for key, row in state["runs"].items() if row.environment.id == environment},
        "channels": {key: kept for key, kept in state["channels"].items() if key.environment_id == environment},
        "waits": {key: row for key, row in state["waits"].items() if row.channel.environment_id == environment},
    }


async def visible_state(world: World) -> dict[str, Any]:
    """Return what any profile's stores tell: all sessions with their runs, tails and waits, and what else might have been made."""
    ports = world.ports
    state: dict[str, Any] = {"waiting": await ports.waitpoints.list_waiting(None, 1000)}
    for environment in await ports.environments.list_all():
        page = await world.site.sessions.sessions.list_sessions(environment)
        for session in page.items:
            state[session.id] = await _visible(ports, session)
        for name in (ABSENT, GHOST):
            for io in Io:
                channel = Channel(environment.id, AddressingKey(name), io)
                state[f"{environment.id} {name} {io}"] = await ports.log.tail(channel)
    return state


async def _visible(ports: Ports, session: Session) -> tuple[Any, ...]:
    row = await ports.sessions.find(session.environment.id, session.id)
    history = await ports.sessions.list_runs(session.environment.id, session.id, 100)
    runs = await asyncio.gather(*(ports.runs.get(line.run_id) for line in history))
    return (row, history, runs, [await ports.log.tail(session.channel(io)) for io in Io])
