"""Rows that an older or a later version wrote and this one does not accept: they hinder nobody else."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contract.makers import ENV_A, following, initial, make_session, make_waitpoint
from sessions_adapters.sqlite import (
    SqliteBacklog,
    SqliteConfig,
    SqliteDatabase,
    SqliteRunStore,
    SqliteSessionStore,
    SqliteWaitpointStore,
)
from sessions_core.domain.ids import RunId, SessionId, WaitpointId
from sessions_core.domain.run import Holding
from sessions_core.domain.session import SessionUpdate
from sessions_core.domain.status import RunStatus
from sessions_core.errors import StoreUnavailableError
from sessions_core.testing import ManualClock

FAR = datetime(2030, 1, 1, tzinfo=UTC)
BAD = SessionId("session_bad")
BAD_RUN = RunId(f"run_of_{BAD}")
NAMES = ("bad", "worse", "good", "fine")
"""The first two of these, which are the oldest ones, become unreadable."""

BREAKAGES = {
    "a tightened rule": "update {table} set {config} = '{{}}'",
    "text that is no JSON": "update {table} set {config} = 'broken'",
    "another type": "update {table} set {config} = '[]'",
}


@pytest.fixture
async def runs(db: SqliteDatabase, clock: ManualClock) -> SqliteRunStore:
    for name in NAMES:
        session = make_session(name, at=clock.now())
        await SqliteSessionStore(db).create(session, initial(session))
        clock.advance(timedelta(seconds=1))
    return SqliteRunStore(db)


@pytest.fixture(params=BREAKAGES)
def breakage(request: pytest.FixtureRequest) -> str:
    return BREAKAGES[request.param]


def damage(config: SqliteConfig, breakage: str, table: str, column: str, *, ids: str = "%bad") -> None:
    statement = breakage.format(table=table, config=column) + " where id like ? or id like '%worse'"
    with closing(sqlite3.connect(config.path)) as connection:
        assert connection.execute(statement, (ids,)).rowcount > 0
        connection.commit()


def reported(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == "sessions.sqlite"]
    assert all(record.levelno == logging.ERROR for record in records)
    assert all(record.exc_info is not None for record in records)
    return [vars(record)["row"] for record in records]


async def test_lists_of_runs_go_past_them_and_tell_once(
    db: SqliteDatabase, config: SqliteConfig, runs: SqliteRunStore, breakage: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(config, breakage, "run", "config")
    backlog = SqliteBacklog(db)
    good, fine = RunId("run_of_session_good"), RunId("run_of_session_fine")
    for _ in range(3):
        assert [run.id for run in await backlog.list_undispatched(FAR, 1)] == [good]
        assert [run.id for run in await backlog.list_undispatched(FAR, 9)] == [good, fine]
    assert reported(caplog) == [BAD_RUN, RunId("run_of_session_worse")]

    with closing(sqlite3.connect(config.path)) as connection:
        connection.execute("update run set status = 'EXECUTING', heartbeat_at = 1")
        connection.commit()
    assert {run.id for run in await backlog.list_stalled(FAR, 2)} == {good, fine}
    with closing(sqlite3.connect(config.path)) as connection:
        connection.execute("update run set status = 'CRASHED', ended_at = 1")
        connection.commit()
    assert {run.id for run in await backlog.list_unsettled(2)} == {good, fine}
    assert len(reported(caplog)) == 2


async def test_a_status_that_this_version_does_not_know_hinders_nobody(
    db: SqliteDatabase, config: SqliteConfig, runs: SqliteRunStore
) -> None:
    with closing(sqlite3.connect(config.path)) as connection:
        connection.execute("update run set ended_at = 1, status = 'CRASHED'")
        connection.execute("update run set status = 'FROM_THE_FUTURE' where id = ?", (BAD_RUN,))
        connection.commit()
    assert len(await SqliteBacklog(db).list_unsettled(9)) == 3
    with pytest.raises(StoreUnavailableError):
        await runs.get(BAD_RUN)


async def test_the_list_of_unsealed_sessions_goes_past_them(
    db: SqliteDatabase, config: SqliteConfig, runs: SqliteRunStore, breakage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(config.path)) as connection:
        connection.execute("update session set closed_at = created_at where id <> 'session_fine'")
        connection.execute("update session set expires_at = created_at where id = 'session_fine'")
        connection.commit()
    damage(config, breakage, "session", "trigger_config")
    backlog = SqliteBacklog(db)
    assert [session.id for session in await backlog.list_unsealed(1)] == ["session_good"]
    assert [session.id for session in await backlog.list_unsealed(2)] == ["session_good", "session_fine"]
    assert sorted(reported(caplog)) == ["session_bad", "session_worse"]


async def test_a_page_of_sessions_goes_past_them(
    db: SqliteDatabase, config: SqliteConfig, runs: SqliteRunStore, breakage: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(config, breakage, "session", "trigger_config")
    ids = [SessionId(f"session_{name}") for name in NAMES]
    found = await SqliteSessionStore(db).find_many(ENV_A.id, ids)
    assert {session.id for session in found} == {"session_good", "session_fine"}
    assert sorted(reported(caplog)) == ["session_bad", "session_worse"]


async def test_whoever_asks_for_one_of_them_is_not_blamed(
    db: SqliteDatabase, config: SqliteConfig, runs: SqliteRunStore, breakage: str
) -> None:
    damage(config, breakage, "session", "trigger_config")
    damage(config, breakage, "run", "config")
    store = SqliteSessionStore(db)
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.find(ENV_A.id, BAD),
        lambda: store.update(ENV_A.id, BAD, SessionUpdate(tags=("a",))),
        lambda: store.close(ENV_A.id, BAD, "over"),
        lambda: runs.find(ENV_A.id, BAD_RUN),
        lambda: runs.get(BAD_RUN),
        lambda: runs.begin(BAD_RUN, 1),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailableError) as refusal:
            await call()
        assert isinstance(refusal.value.__cause__, Exception)
    assert await runs.finish(Holding(BAD_RUN, 0), RunStatus.CANCELED), "begin has left no trace"
    good = make_session("good", current_run_version=1)
    await store.claim_run(following(good), expected_version=1)


async def test_lists_of_waitpoints_go_past_them(
    db: SqliteDatabase, config: SqliteConfig, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteWaitpointStore(db)
    for name in NAMES:
        await store.create(make_waitpoint(name, expires_at=db.now()))
    damage(config, BREAKAGES["text that is no JSON"], "waitpoint", "tags")
    due = [waitpoint.id for waitpoint in await store.list_due(9)]
    assert due == [waitpoint.id for waitpoint in await store.list_due(2)]
    assert due == ["waitpoint_fine", "waitpoint_good"]
    assert [waitpoint.id for waitpoint in await store.list_waiting(None, 2)] == due
    assert sorted(reported(caplog)) == ["waitpoint_bad", "waitpoint_worse"]
    with pytest.raises(StoreUnavailableError):
        await store.find(ENV_A.id, WaitpointId("waitpoint_bad"))
