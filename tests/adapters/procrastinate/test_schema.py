"""The schema: installed once, by whoever comes first, in a place of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import asyncpg
import pytest

from contract.makers import at_once
from sessions_adapters import procrastinate
from sessions_adapters.procrastinate import ProcrastinateConfig, schema
from sessions_core.errors import IncompatibleStoreError

pytestmark = pytest.mark.needs_postgres


async def test_of_many_migrations_at_once_one_installs_the_schema(bare_url: str) -> None:
    config = ProcrastinateConfig(url=bare_url)
    applied = await at_once([partial(procrastinate.migrate, config)] * 6)
    assert sorted(map(len, applied)) == [0, 0, 0, 0, 0, 1]
    assert await procrastinate.find_problem(config) is None


async def test_nothing_outside_the_schema_is_touched(bare_url: str) -> None:
    await procrastinate.migrate(ProcrastinateConfig(url=bare_url, schema="elsewhere"))
    connection = await asyncpg.connect(bare_url)
    rows = await connection.fetch("select distinct schemaname from pg_tables where tablename like 'procrastinate%'")
    await connection.close()
    assert [row["schemaname"] for row in rows] == ["elsewhere"]


async def test_without_the_schema_nothing_opens_and_the_message_says_what_to_do(bare_url: str) -> None:
    with pytest.raises(IncompatibleStoreError, match="run `sessions migrate` first"):
        async with procrastinate.open_dispatcher(ProcrastinateConfig(url=bare_url)):
            pass


async def test_later_migrations_of_procrastinate_are_applied_once(
    bare_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, steps = ProcrastinateConfig(url=bare_url), schema._steps()
    with monkeypatch.context() as before:
        before.setattr(schema, "_steps", lambda: steps[:-1])
        await procrastinate.migrate(config)
    monkeypatch.setattr(schema, "_apply", _only_note)
    assert await procrastinate.find_problem(config) is not None
    assert await procrastinate.migrate(config) == [steps[-1].stem]
    assert await procrastinate.migrate(config) == []
    assert await procrastinate.find_problem(config) is None


async def _only_note(connection: schema.Connection, step: Path) -> str:
    """Stand in for a step whose effect the schema has already."""
    await connection.execute(schema.NOTE, (step.stem,))
    return step.stem


async def test_a_schema_of_a_newer_release_is_refused(bare_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, steps = ProcrastinateConfig(url=bare_url), schema._steps()
    await procrastinate.migrate(config)
    monkeypatch.setattr(schema, "_steps", lambda: steps[:-1])
    assert "newer" in (await procrastinate.find_problem(config) or "")
