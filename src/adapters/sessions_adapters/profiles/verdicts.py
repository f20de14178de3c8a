"""Rules: from what a system has said to what ``sessions doctor`` says about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sessions_adapters.profiles.backends import setting
from sessions_adapters.profiles.findings import Finding, error, ok, warning

if TYPE_CHECKING:
    from sessions_adapters.clickhouse import ClickHouseFacts
    from sessions_adapters.postgres import PostgresFacts
    from sessions_adapters.postgres.replication import ReplicationFacts
    from sessions_adapters.redis import RedisFacts
    from sessions_adapters.s2 import S2Facts

POSTGRES: Final = "Postgres"
REDIS: Final = "Redis"
S2: Final = "S2"
CLICKHOUSE: Final = "ClickHouse"
REPLICATION: Final = "replication"
LARGEST_SKEW: Final = timedelta(seconds=1)
OLDEST_POSTGRES: Final = 15
NEWEST_POSTGRES: Final = 18
OLDEST_REDIS: Final = (6, 2)
OLDEST_CLICKHOUSE: Final = (25, 3)
CONNECTIONS: Final = 13
"""How many connections to Postgres one server process opens at most …"""
OF_WORKERS: Final = 6
"""… and how many more if runs wait there: those for jobs, one that listens, and one for heartbeats."""


def own_limits(processes: int) -> Finding:
    """Judge how requests are counted where servers share data and no Redis; *processes* of them are on this machine."""
    times = f", so limits are {processes} times as wide here" if processes > 1 else ""
    message = f"each server process counts requests for itself{times}; with {setting('redis_url')} they count together"
    return ok("limits", "requests", message)


def judge_postgres(
    facts: PostgresFacts, *, replicates: bool, has_jobs: bool = False, processes: int = 1
) -> Iterator[Finding]:
    """Judge a server.

    Args:
        facts: What it has said.
        replicates: Whether it is to feed an index.
        has_jobs: Whether runs wait there for a worker.
        processes: How many of ours use it, on this machine.
    """
    yield _postgres_version(facts)
    yield _role(facts)
    yield migrations(POSTGRES, facts.problem)
    yield clock(POSTGRES, facts.skew)
    yield _durability(facts)
    yield _connections(facts, processes * (CONNECTIONS + (OF_WORKERS if has_jobs else 0)))
    yield _replication(facts, replicates=replicates)


def _postgres_version(facts: PostgresFacts) -> Finding:
    major = facts.version // 10_000
    if major < OLDEST_POSTGRES:
        return error(POSTGRES, "version", f"{facts.release} is too old; upgrade it to {OLDEST_POSTGRES} or newer")
    if major > NEWEST_POSTGRES:
        known = f"{OLDEST_POSTGRES} to {NEWEST_POSTGRES}"
        return warning(
            POSTGRES, "version", f"{facts.release} is newer than what this release was tested with ({known})"
        )
    return ok(POSTGRES, "version", facts.release)


def _role(facts: PostgresFacts) -> Finding:
    if facts.is_standby:
        name = setting("database_url")
        return error(POSTGRES, "role", f"a standby cannot be written; let {name} name the primary")
    if facts.forbidden:
        tables = ", ".join(facts.forbidden)
        return error(POSTGRES, "role", f"may not read and write {tables}; grant it select, insert, update and delete")
    return ok(POSTGRES, "role", "takes writes")


def migrations(system: str, problem: str | None) -> Finding:
    """Judge a schema by what is wrong with it, which says what to do, too."""
    return ok(system, "migrations", "all applied") if problem is None else error(system, "migrations", problem)


def clock(system: str, skew: timedelta) -> Finding:
    """Judge how far the clock of *system* is before that of this machine."""
    seconds = f"{abs(skew).total_seconds():.1f} s {'ahead of' if skew > timedelta() else 'behind'} this machine's"
    if abs(skew) > LARGEST_SKEW:
        return warning(
            system, "clock", f"is {seconds}; let both be set by NTP, or tokens may end too early or too late"
        )
    return ok(system, "clock", "agrees with this machine's")


def _durability(facts: PostgresFacts) -> Finding:
    if facts.is_durable:
        return ok(POSTGRES, "durability", "commits reach the disk before they are acknowledged")
    return warning(
        POSTGRES, "durability", "a crash may lose what was acknowledged; set fsync and synchronous_commit to on"
    )


def _connections(facts: PostgresFacts, needed: int) -> Finding:
    left = facts.room - facts.connections
    message = f"{left} of {facts.room} are free"
    if left < needed:
        return warning(POSTGRES, "connections", f"{message}, but a server opens up to {needed}; raise max_connections")
    return ok(POSTGRES, "connections", message)


def _replication(facts: PostgresFacts, *, replicates: bool) -> Finding:
    lacking = []
    if facts.wal_level != "logical":
        lacking.append("wal_level = logical and a restart")
    if not facts.may_replicate:
        lacking.append("alter role … replication")
    if facts.free_slots < 1:
        lacking.append("a larger max_replication_slots")
    if not lacking:
        return ok(POSTGRES, "replication", "possible")
    message = f"not possible yet; an index that is fed from here needs {', and '.join(lacking)}"
    return warning(POSTGRES, "replication", message) if replicates else ok(POSTGRES, "replication", message)


def judge_replication(facts: ReplicationFacts, limit_bytes: int) -> Iterator[Finding]:
    """Judge what streams from a server; it should not keep more of its log for that than *limit_bytes*."""
    if facts.problem is not None:
        yield error(REPLICATION, "slot", facts.problem)
    elif not facts.has_slot:
        yield ok(REPLICATION, "slot", "is not there yet; `sessions replicate` makes it")
        return
    elif not facts.is_active:
        yield warning(
            REPLICATION, "slot", "nobody streams from it; run `sessions replicate`, or the index falls behind"
        )
    else:
        yield ok(REPLICATION, "slot", "somebody streams from it")
    yield _lag(facts, limit_bytes)
    yield _backfill(facts)
    yield _dead_letters(facts)


def _lag(facts: ReplicationFacts, limit_bytes: int) -> Finding:
    message = f"{_mib(facts.lag_bytes)} behind; Postgres keeps {_mib(facts.retained_bytes)} of its log for that"
    if facts.retained_bytes > limit_bytes:
        advice = "replicate, or drop the slot before the disk is full, and set max_slot_wal_keep_size"
        return warning(REPLICATION, "lag", f"{message}; {advice}")
    return ok(REPLICATION, "lag", message)


def _backfill(facts: ReplicationFacts) -> Finding:
    if facts.has_backfill:
        return ok(REPLICATION, "backfill", "sessions older than the slot have been filled in")
    state = "has not come to its end" if facts.has_backfill is False else "has not been made"
    return warning(
        REPLICATION,
        "backfill",
        f"{state}; if there are sessions older than the slot, run `sessions replicate --backfill`",
    )


def _dead_letters(facts: ReplicationFacts) -> Finding:
    if facts.dead_letters == 0:
        return ok(REPLICATION, "dead letters", "none")
    return warning(
        REPLICATION,
        "dead letters",
        f"{facts.dead_letters} changes are not in the index; look at the table dead_letter, and delete what is settled",
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def judge_redis(facts: RedisFacts) -> Iterator[Finding]:
    """Judge a server."""
    if _numbers(facts.version) < OLDEST_REDIS:
        yield error(REDIS, "version", f"{facts.version} is too old; upgrade it to 6.2 or newer")
    else:
        yield ok(REDIS, "version", facts.version)
    if facts.is_cluster:
        yield error(
            REDIS, "role", "a node of a cluster answers for some channels only; name a server that is no cluster"
        )
    elif not facts.is_writable:
        yield error(REDIS, "role", f"a replica cannot be written; let {setting('redis_url')} name the primary")
    else:
        yield ok(REDIS, "role", "takes writes and runs scripts")
        yield ok(REDIS, "limits", "requests are counted here, for all servers together")


def judge_s2(facts: S2Facts, *, basin: str) -> Iterator[Finding]:
    """Judge the service and what it says about *basin*."""
    yield _basin(facts, basin)
    if facts.has_issued is None:
        yield ok(S2, "tokens", "a server of one's own issues none; browsers cannot write past sessions, servers can")
    elif facts.has_issued:
        yield ok(S2, "tokens", "issued for single streams")
    else:
        yield warning(
            S2, "tokens", "our token may not issue any, so nobody can write past sessions; allow it issue-access-token"
        )


def _basin(facts: S2Facts, basin: str) -> Finding:
    if facts.has_basin is None:
        return ok(S2, "basin", f"{basin} cannot be looked at with our token, which is fine if it may use it")
    if not facts.has_basin:
        return ok(S2, "basin", f"{basin} is not there yet; the first server makes it")
    if facts.reuses_seqs:
        return error(
            S2, "basin", f"{basin} deletes empty streams and would use numbers again; switch delete_on_empty off"
        )
    return ok(S2, "basin", f"{basin} keeps its streams")


def judge_clickhouse(facts: ClickHouseFacts) -> Iterator[Finding]:
    """Judge a server."""
    if _numbers(facts.version) < OLDEST_CLICKHOUSE:
        yield error(CLICKHOUSE, "version", f"{facts.version} is too old; upgrade it to 25.3 or newer")
    else:
        yield ok(CLICKHOUSE, "version", facts.version)
    yield migrations(CLICKHOUSE, facts.problem)
    yield clock(CLICKHOUSE, facts.skew)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
