"""Set-ups in which our role may not do all it should: doctor and migrate say so, in words that lead on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from sessions_adapters.profiles import Backends, Health, diagnose, migrate, reason
from sessions_core.errors import StoreUnavailableError

pytestmark = pytest.mark.needs_postgres


@asynccontextmanager
async def lowly_role(url: str) -> AsyncIterator[str]:
    """Make a role that owns nothing, and give the URL with which it comes; afterwards it is gone."""
    role = f"lowly_{uuid4().hex}"
    await carry_out(url, f"create role {role} login password 'quite-secret'")
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    try:
        yield urlunsplit(parts._replace(netloc=f"{role}:quite-secret@{place}"))
    finally:
        await carry_out(url, f"drop owned by {role}; drop role {role}")


async def carry_out(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


def local(url: str, data: Path) -> Backends:
    return Backends(profile="postgres", database_url=url, data=data, dispatcher="local")


async def problems(backends: Backends) -> dict[str, str]:
    """Return what doctor calls an error, and what it says about it."""
    return {found.check: found.message for found in await diagnose(backends) if found.health is Health.ERROR}


async def test_a_role_that_may_not_make_the_schema_is_told_by_migrate(bare_url: str, tmp_path: Path) -> None:
    async with lowly_role(bare_url) as url:
        with pytest.raises(StoreUnavailableError) as refusal:
            await migrate(local(url, tmp_path))
    assert reason(refusal.value) == "its role lacks a right"


async def test_a_database_that_is_not_there_is_told(bare_url: str, tmp_path: Path) -> None:
    url = urlunsplit(urlsplit(bare_url)._replace(path="/nowhere_to_be_found"))
    with pytest.raises(StoreUnavailableError) as refusal:
        await migrate(local(url, tmp_path))
    assert reason(refusal.value) == "there is no such database"
    assert "there is no such database" in (await problems(local(url, tmp_path)))["reachable"]


async def test_a_role_needs_the_schema_then_its_tables_and_then_nothing_more(url: str, tmp_path: Path) -> None:
    async with lowly_role(url) as lowly:
        role = urlsplit(lowly).username
        barred = await problems(local(lowly, tmp_path))
        await carry_out(url, f"grant usage on schema sessions to {role}")
        await carry_out(url, f"grant select on all tables in schema sessions to {role}")
        reads = await problems(local(lowly, tmp_path))
        await carry_out(url, f"grant insert, update, delete on all tables in schema sessions to {role}")
        await carry_out(url, f"grant usage on all sequences in schema sessions to {role}")
        assert "may not use it" in barred["migrations"]
        assert "sessions migrate" not in barred["migrations"]
        assert "session, " in reads["role"]
        assert "schema_version" not in reads["role"]
        assert await problems(local(lowly, tmp_path)) == {}
