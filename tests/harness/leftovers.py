"""What a fleet must not leave behind: looked for while it rests, and again after it was told to end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio
import asyncpg
from redis.asyncio import Redis

from harness.fleet import Fleet

REST_SECONDS: Final = 60.0
AT_REST: Final[Mapping[str, str]] = {
    "runs that wait": "select count(*) from sessions.run where status in ('PENDING', 'DELAYED')",
    "unsettled runs": "select count(*) from sessions.run where ended_at is not null and settled_at is null",
    "jobs of ended runs": """
        select count(*) from sessions_procrastinate.procrastinate_jobs job
        join sessions.run on run.id = job.args->>'run' where run.ended_at is not null
    """,
    "jobs of nobody": """
        select count(*) from sessions_procrastinate.procrastinate_jobs job
        left join sessions_procrastinate.procrastinate_workers worker on worker.id = job.worker_id
        where job.status = 'doing' and (worker.id is null or worker.last_heartbeat < now() - interval '15 s')
    """,
    "unended waits": "select count(*) from sessions.waitpoint where status = 'WAITING'",
    "registered waits": "select count(*) from sessions.wait_member",
    "open transactions": """
        select count(*) from pg_stat_activity where state like 'idle in transaction%' and state_change < now() - interval '5 s'
    """,
    "leaders too many": """
        select count(*) - count(distinct (classid, objid)) from pg_locks where locktype = 'advisory' and granted
            and database = (select oid from pg_database where datname = current_database())
    """,
}
AT_THE_END: Final[Mapping[str, str]] = {
    "connections": """
        select count(*) from pg_stat_activity
        where backend_type in ('client backend', 'walsender') and pid <> pg_backend_pid()
    """,
    "locks": "select count(*) from pg_locks where locktype = 'advisory'",
    "jobs being done": "select count(*) from sessions_procrastinate.procrastinate_jobs where status = 'doing'",
}


async def find_at_rest(fleet: Fleet) -> list[str]:
    """Say what is there that should be gone a while after the last message."""
    return await _until_nothing(lambda: _count_at_rest(fleet))


async def find_at_the_end(fleet: Fleet) -> list[str]:
    """Say what is there although all servers and workers have ended."""
    return await _until_nothing(lambda: _count(fleet.postgres.url, AT_THE_END))


async def _until_nothing(count: Callable[[], Awaitable[dict[str, int]]]) -> list[str]:
    deadline = time.monotonic() + REST_SECONDS
    left = await count()
    while left and time.monotonic() < deadline:
        await anyio.sleep(0.5)
        left = await count()
    return [f"{number} {what} are left" for what, number in left.items()]


async def _count_at_rest(fleet: Fleet) -> dict[str, int]:
    counts = await _count(fleet.postgres.url, AT_REST)
    url = fleet.backends.redis_url
    if url is not None and (members := await _count_keys(url)):
        counts["members in Redis"] = members
    return counts


async def _count(url: str, statements: Mapping[str, str]) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    try:
        counts = {what: await connection.fetchval(statement) for what, statement in statements.items()}
    finally:
        await connection.close()
    return {what: number for what, number in counts.items() if number}


async def _count_keys(url: str) -> int:
    async with Redis.from_url(url) as redis:
        return len([key async for key in redis.scan_iter("sessions:*", count=1000)])
