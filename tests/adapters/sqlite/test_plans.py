"""Every statement finds its rows by an index, so no cost grows with age."""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime
from types import ModuleType

import pytest

from sessions_adapters.sqlite import (
    SqliteDatabase,
    backlog,
    environment_store,
    heads,
    log_reader,
    log_writer,
    run_rows,
    run_store,
    session_index,
    session_rows,
    session_store,
    trimmer,
    waitpoint_store,
)
from sessions_adapters.sqlite.session_index import _Query
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId, SessionId
from sessions_core.domain.pagination import Cursor, Direction, PageRequest, SessionFilter

MODULES = (
    backlog,
    environment_store,
    heads,
    log_reader,
    log_writer,
    run_rows,
    run_store,
    session_index,
    session_rows,
    session_store,
    trimmer,
    waitpoint_store,
)
ALL_ROWS = {"LIST_ENVIRONMENTS", "FIND_SEALED", "LIST_SEALED", "FORGET_ROOT_KEYS"}
"""Statements whose answer is the whole table, all root keys, or the first and last row at start-up."""
ENVIRONMENT = Environment(
    id=EnvironmentId("env_1"),
    organization_id=OrganizationId("org"),
    project_id=ProjectId("proj"),
    type=EnvironmentType.DEVELOPMENT,
)


def statements(module: ModuleType) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, value in vars(module).items()
        if isinstance(value, str)
        and name not in ALL_ROWS
        and re.match(r"\s*(select|insert|update|delete)\b", value)
        and name != "SELECT_RUN"
    ]


async def explain(db: SqliteDatabase, statement: str) -> list[str]:
    marks = {f"p{i}": 1 for i in range(statement.count("?"))}
    for name in marks:
        statement = statement.replace("?", f":{name}", 1)
    values = dict.fromkeys(re.findall(r":(\w+)", statement), 1)
    return await db.read(lambda c: [row["detail"] for row in c.execute(f"explain query plan {statement}", values)])


def is_flat(step: str) -> bool:
    """Tell whether a step of a plan looks at a few rows only."""
    return (
        not step.startswith("SCAN")
        or re.search(r"json_each|SUBQUERY|\(subquery|INDEX (channel_unswept|run_dispatched)$", step) is not None
    )


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
async def test_no_statement_scans_a_table(db: SqliteDatabase, module: ModuleType) -> None:
    assert statements(module)
    for name, statement in statements(module):
        plan = await explain(db, statement)
        assert all(is_flat(step) for step in plan), (name, plan)


@pytest.mark.parametrize(
    "statement",
    [heads.FIND_LAST, log_reader.READ, log_reader.READ_BACK, backlog.LIST_UNDISPATCHED, backlog.LIST_UNSETTLED,
     backlog.LIST_STALLED, backlog.LIST_CLOSED, backlog.LIST_EXPIRED, waitpoint_store.LIST_DUE, waitpoint_store.LIST_WAITING, waitpoint_store.LIST_WAITING_ON, session_store.LIST_RUNS],
)  # fmt: skip
async def test_what_is_limited_is_read_in_its_order_without_sorting(db: SqliteDatabase, statement: str) -> None:
    assert not [step for step in await explain(db, statement) if "TEMP B-TREE" in step]


CURSOR = Cursor(datetime(2026, 1, 1, tzinfo=UTC), SessionId("session_1"))


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("cursor", [None, CURSOR], ids=["start", "cursor"])
@pytest.mark.parametrize("tags", [(), ("a", "b")], ids=["all", "tagged"])
async def test_a_page_is_read_along_an_index(
    db: SqliteDatabase, direction: Direction, cursor: Cursor | None, tags: tuple[str, ...]
) -> None:
    wanted = SessionFilter(environment_id=ENVIRONMENT.id, tags=tags, types=("chat",))
    request = PageRequest(cursor=cursor, direction=direction)
    seen: list[str] = []

    def select(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(seen.append)
        _Query.of(wanted, 0).for_page(request).select(connection, request)
        connection.set_trace_callback(None)

    await db.read(select)
    page = seen[0]
    plan = await db.read(lambda c: [row["detail"] for row in c.execute(f"explain query plan {page}")])
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    expected = r"SEARCH k USING (COVERING )?(INDEX session_page|PRIMARY KEY)"
    assert re.match(expected, plan[0]), plan
    assert ("(created_at,id)" in plan[0].replace(" ", "")) == (cursor is not None), plan
