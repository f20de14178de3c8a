"""Looking at every system that is configured: one function each, all at once, each within a time limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from sessions_adapters.profiles.backends import (
    CLICKHOUSE,
    DATABASE_NAME,
    EMBEDDED,
    PROCRASTINATE,
    SCALE,
    WEBHOOK,
    Backends,
    setting,
)
from sessions_adapters.profiles.findings import Finding, error, ok, reason, shown, warning
from sessions_adapters.profiles.keys import find_cipher, is_current
from sessions_adapters.profiles.replication import ReplicationSettings
from sessions_adapters.profiles.verdicts import (
    REPLICATION,
    judge_clickhouse,
    judge_postgres,
    judge_redis,
    judge_replication,
    judge_s2,
    own_limits,
)
from sessions_adapters.system import SystemClock
from sessions_core.errors import IncompatibleStoreError, InvalidError, UnavailableError

if TYPE_CHECKING:
    from sessions_adapters.postgres import PostgresFacts
    from sessions_adapters.sqlite import SqliteConfig

KEY: Final = "key"
REACHABLE: Final = "reachable"
DISPATCHER: Final = "dispatcher"
ENGINE: Final = "engine"

Look = Callable[[Backends, timedelta], Awaitable[list[Finding]]]
DRIVERS: Final = {
    "Postgres": "postgres",
    "S2": "s2",
    "Redis": "redis",
    "ClickHouse": "clickhouse",
    REPLICATION: "postgres.replication",
}
"""The adapter whose import brings in the driver of a system."""


async def diagnose(
    backends: Backends,
    *,
    replication: ReplicationSettings | None = None,
    processes: int = 1,
    patience: timedelta = timedelta(seconds=5),
) -> list[Finding]:
    """Look at every system of *backends* as a server would use it, and change nothing.

    Args:
        backends: Need not be complete or right: that is a finding, too.
        replication: What is to replicate, if anything is.
        processes: How many server processes there are to be on this machine.
        patience: How long each system has; all are asked at once. Never takes longer than this and a few seconds.
    """
    uses_redis = backends.profile == SCALE or backends.redis_url is not None
    looks: list[tuple[str, str, Look]] = [(*_store_of(backends), partial(_look_at_store, processes))]
    if backends.profile == SCALE or backends.s2_url is not None:
        looks.append(("S2", backends.s2_url or "", _look_at_s2))
    if uses_redis:
        looks.append(("Redis", backends.redis_url or "", _look_at_redis))
    if backends.index == CLICKHOUSE or backends.clickhouse_url is not None:
        looks.append(("ClickHouse", backends.clickhouse_url or "", _look_at_clickhouse))
    if backends.dispatcher == WEBHOOK:
        looks.append((ENGINE, backends.webhook_url or "", _look_at_engine))
    if replication is not None:
        looks.append((REPLICATION, replication.database_url, partial(_look_at_replication, replication)))
    _import_drivers(system for system, _, _ in looks)
    found: list[list[Finding]] = [[] for _ in looks]

    async def look(number: int) -> None:
        system, url, at = looks[number]
        found[number] = await _limited(system, url, at, backends, patience)

    async with anyio.create_task_group() as group:
        for number in range(len(looks)):
            group.start_soon(look, number)
    own = [own_limits(processes)] if backends.uses_postgres and not uses_redis else []
    return [*(finding for findings in found for finding in findings), *own]


def _import_drivers(systems: Iterable[str]) -> None:
    """Import what is going to be needed: that takes seconds on a busy machine, which are nobody's patience."""
    for system in systems:
        with suppress(ImportError):  # told of by the one that needs it
            if system in DRIVERS:
                import_module(f"sessions_adapters.{DRIVERS[system]}")


def _store_of(backends: Backends) -> tuple[str, str]:
    if backends.uses_postgres:
        return "Postgres", backends.database_url or ""
    return ("SQLite" if backends.profile == EMBEDDED else "memory"), ""


async def _limited(system: str, url: str, look: Look, backends: Backends, patience: timedelta) -> list[Finding]:
    """Carry out *look*; whatever keeps it from its end is a finding."""
    where = f"{shown(url)}: " if url else ""
    try:
        with anyio.fail_after(patience.total_seconds()):
            return await look(backends, patience)
    except InvalidError as failure:
        return [error(system, "setting", str(failure))]
    except ImportError as failure:
        return [error(system, "extra", str(failure))]
    except IncompatibleStoreError as failure:
        return [error(system, "data", str(failure))]
    except (UnavailableError, TimeoutError) as failure:
        return [error(system, REACHABLE, f"{where}{reason(failure)}; start it, or correct its address and credentials")]
    except Exception as failure:  # noqa: BLE001 - one system that is odd must not hide the others
        return [
            error(system, "setting", f"{where}could not be looked at ({type(failure).__name__}); check its setting")
        ]


async def _look_at_store(processes: int, backends: Backends, patience: timedelta) -> list[Finding]:
    if backends.uses_postgres:
        return await _look_at_postgres(processes, backends, patience)
    if backends.profile == EMBEDDED:
        return await _look_at_sqlite(backends)
    return [ok("memory", "store", "nothing survives the process")]


async def _look_at_postgres(processes: int, backends: Backends, patience: timedelta) -> list[Finding]:
    config = attrs.evolve(backends.postgres(), connect_timeout=patience, statement_timeout=patience)
    from sessions_adapters import postgres

    facts: PostgresFacts = await postgres.inspect(config)
    has_jobs = backends.dispatcher == PROCRASTINATE
    replicates = backends.clickhouse_url is not None
    verdicts = judge_postgres(facts, replicates=replicates, has_jobs=has_jobs, processes=processes)
    key = [] if facts.problem or facts.forbidden else [_look_at_key("Postgres", backends, facts.sealed)]
    jobs = await _look_at_procrastinate(backends, patience) if has_jobs else []
    return [_reached("Postgres", backends.database_url), *verdicts, *key, *jobs]


async def _look_at_sqlite(backends: Backends) -> list[Finding]:
    path = backends.directory / DATABASE_NAME
    if not await anyio.Path(path).exists():
        return [ok("SQLite", "file", f"{path} is not there yet; the server makes it")]
    from sessions_adapters import sqlite

    config: SqliteConfig = backends.sqlite(owner=False)
    async with sqlite.open_database(config, clock=SystemClock(), migrate=False) as db:
        sealed = await sqlite.find_sealed_keys(db)
    return [ok("SQLite", "file", f"{path} can be read and written"), _look_at_key("SQLite", backends, sealed)]


async def _look_at_engine(backends: Backends, _: timedelta) -> list[Finding]:
    config = backends.webhook()
    from sessions_adapters import webhook

    await webhook.reach(config)
    found = [_reached(ENGINE, config.url)]
    if config.is_readable_on_its_way:
        found.append(
            warning(ENGINE, "encryption", "tokens and payloads of runs leave this machine readable; use https")
        )
    return found


async def _look_at_s2(backends: Backends, patience: timedelta) -> list[Finding]:
    config = backends.s2()
    assert config is not None
    from sessions_adapters import s2

    facts = await s2.inspect(attrs.evolve(config, timeout=patience))
    return [_reached("S2", config.endpoint or "the hosted service"), *judge_s2(facts, basin=config.basin)]


async def _look_at_redis(backends: Backends, patience: timedelta) -> list[Finding]:
    config = backends.redis()
    assert config is not None
    from sessions_adapters import redis

    facts = await redis.inspect(attrs.evolve(config, timeout=patience))
    return [_reached("Redis", config.url), *judge_redis(facts)]


async def _look_at_replication(settings: ReplicationSettings, _: Backends, patience: timedelta) -> list[Finding]:
    config, feed = settings.postgres(), settings.feed()
    from sessions_adapters.postgres import replication

    facts = await replication.inspect(attrs.evolve(config, connect_timeout=patience, statement_timeout=patience), feed)
    return list(judge_replication(facts, settings.retained_bytes))


async def _look_at_clickhouse(backends: Backends, patience: timedelta) -> list[Finding]:
    config = backends.clickhouse()
    assert config is not None
    from sessions_adapters import clickhouse

    facts = await clickhouse.inspect(attrs.evolve(config, timeout=patience))
    return [_reached("ClickHouse", config.url), *judge_clickhouse(facts), _look_at_index(backends)]


async def _look_at_procrastinate(backends: Backends, patience: timedelta) -> list[Finding]:
    config = attrs.evolve(backends.procrastinate(), timeout=patience)
    from sessions_adapters import procrastinate

    problem = await procrastinate.find_problem(config)
    if problem is not None:
        return [error("Postgres", DISPATCHER, problem)]
    return [ok("Postgres", DISPATCHER, "the schema of Procrastinate is up to date")]


def _reached(system: str, url: str | None) -> Finding:
    return ok(system, REACHABLE, shown(url) if url and "://" in url else url or "")


def _look_at_index(backends: Backends) -> Finding:
    if backends.index != CLICKHOUSE:
        return ok("ClickHouse", "index", "ready to be written; lists are read from the store")
    if not backends.uses_postgres:
        lacks = f"the profile {backends.profile} cannot be replicated; unset {setting('index')}"
        return warning("ClickHouse", "index", f"lists are read from here, and nothing writes here: {lacks}")
    return ok("ClickHouse", "index", "lists are read from here")


def _look_at_key(system: str, backends: Backends, sealed: Sequence[bytes]) -> Finding:
    """Try the encryption key on root keys as they are stored."""
    try:
        find_cipher(backends, sealed)
        if sealed and not is_current(backends, sealed):
            return warning(system, KEY, "root keys are encrypted with an older key; run `sessions env re-encrypt`")
    except (IncompatibleStoreError, InvalidError) as failure:
        return error(system, KEY, str(failure))
    if sealed:
        return ok(system, KEY, "opens the root keys")
    if backends.encryption_key is None and backends.uses_postgres:
        return warning(system, KEY, f"{setting('encryption_key')} is not set; set it, the same on every machine")
    return ok(system, KEY, "nothing is encrypted yet")
