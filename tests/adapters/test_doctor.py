"""What ``sessions doctor`` says about systems that are well, that are not, and that are not there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import attrs
import pytest

from contract.makers import ENV_A
from harness.backends import open_backends
from harness.clickhouse import CLICKHOUSE
from harness.databases import find_databases
from sessions_adapters.clickhouse import ClickHouseFacts
from sessions_adapters.fernet import FernetCipher
from sessions_adapters.postgres import PostgresFacts
from sessions_adapters.postgres.replication import ReplicationFacts
from sessions_adapters.profiles import Backends, Finding, Health, diagnose, migrate, open_environments
from sessions_adapters.profiles.findings import reason, shown
from sessions_adapters.profiles.verdicts import (
    judge_clickhouse,
    judge_postgres,
    judge_redis,
    judge_replication,
    judge_s2,
)
from sessions_adapters.redis import RedisFacts
from sessions_adapters.s2 import S2Facts

ROOT_KEY = "tr_dev_" + "a" * 24
KEY = FernetCipher.generate_key().decode()
SECRET = "hunter2"
NOWHERE = {
    "database_url": f"postgresql://sessions:{SECRET}@127.0.0.1:{{port}}/sessions?application_name={SECRET}",
    "s2_url": f"s2://:{SECRET}@a-basin-of-ours?endpoint=http://127.0.0.1:{{port}}",
    "redis_url": f"redis://:{SECRET}@127.0.0.1:{{port}}/0",
    "clickhouse_url": f"http://sessions:{SECRET}@127.0.0.1:{{port}}",
}
SYSTEMS = ["Postgres", "S2", "Redis", "ClickHouse"]
POSTGRES = PostgresFacts(
    version=180001,
    release="18.1",
    is_durable=True,
    room=97,
    connections=3,
    wal_level="logical",
    free_slots=10,
    may_replicate=True,
    is_standby=False,
    forbidden=(),
    skew=timedelta(),
    problem=None,
    sealed=(),
)
REPLICATION = ReplicationFacts(
    problem=None, has_slot=True, is_active=True, lag_bytes=0, retained_bytes=1 << 20, has_backfill=True, dead_letters=0
)
S2 = S2Facts(has_basin=True, reuses_seqs=False, has_issued=True)
REDIS = RedisFacts(version="7.2.4", is_cluster=False, is_writable=True)
CLICKHOUSE_FACTS = ClickHouseFacts(version="25.8.2.1", skew=timedelta(), problem=None)


def not_ok(findings: Iterator[Finding] | list[Finding]) -> list[tuple[str, str]]:
    return [(finding.health.value, finding.check) for finding in findings if finding.health is not Health.OK]


def scale(port: int) -> Backends:
    given: dict[str, Any] = {name: url.format(port=port) for name, url in NOWHERE.items()}
    return Backends(profile="scale", encryption_key=KEY, **given)


@contextmanager
def silent_server() -> Iterator[int]:
    """Give the port of somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, []),
        ({"version": 140012}, [("error", "version")]),
        ({"version": 190000}, [("warning", "version")]),
        ({"problem": "run `sessions migrate` first"}, [("error", "migrations")]),
        ({"is_standby": True}, [("error", "role")]),
        ({"forbidden": ("record", "session")}, [("error", "role")]),
        ({"skew": timedelta(seconds=90)}, [("warning", "clock")]),
        ({"skew": timedelta(seconds=-90)}, [("warning", "clock")]),
        ({"is_durable": False}, [("warning", "durability")]),
        ({"connections": 90}, [("warning", "connections")]),
        ({"wal_level": "replica"}, [("warning", "replication")]),
        ({"may_replicate": False}, [("warning", "replication")]),
        ({"free_slots": 0}, [("warning", "replication")]),
    ],
)
def test_what_is_wrong_with_a_postgres(facts: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert not_ok(judge_postgres(attrs.evolve(POSTGRES, **facts), replicates=True)) == found


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, []),
        ({"problem": "ALTER SYSTEM SET wal_level = 'logical'"}, [("error", "slot")]),
        ({"has_slot": False}, []),
        ({"is_active": False}, [("warning", "slot")]),
        ({"retained_bytes": 2 << 20}, [("warning", "lag")]),
        ({"has_backfill": False}, [("warning", "backfill")]),
        ({"has_backfill": None}, [("warning", "backfill")]),
        ({"dead_letters": 3}, [("warning", "dead letters")]),
    ],
)
def test_what_is_wrong_with_replication(facts: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert not_ok(judge_replication(attrs.evolve(REPLICATION, **facts), limit_bytes=1 << 20)) == found


def test_a_server_that_takes_runs_from_postgres_needs_more_connections() -> None:
    few = attrs.evolve(POSTGRES, room=97, connections=82)
    assert not_ok(judge_postgres(few, replicates=False)) == []
    assert not_ok(judge_postgres(few, replicates=False, has_jobs=True)) == [("warning", "connections")]
    assert not_ok(judge_postgres(few, replicates=False, processes=2)) == [("warning", "connections")]


def test_a_postgres_need_not_replicate_where_nothing_is_fed_from_it() -> None:
    assert not_ok(judge_postgres(attrs.evolve(POSTGRES, wal_level="replica"), replicates=False)) == []


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, []),
        ({"has_basin": False}, []),
        ({"has_basin": None}, []),
        ({"has_issued": None}, []),
        ({"has_issued": False}, [("warning", "tokens")]),
        ({"reuses_seqs": True}, [("error", "basin")]),
    ],
)
def test_what_is_wrong_with_an_s2(facts: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert not_ok(judge_s2(attrs.evolve(S2, **facts), basin="a-basin-of-ours")) == found


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, []),
        ({"version": "6.2.0"}, []),
        ({"version": "6.0.16"}, [("error", "version")]),
        ({"is_cluster": True}, [("error", "role")]),
        ({"is_writable": False}, [("error", "role")]),
    ],
)
def test_what_is_wrong_with_a_redis(facts: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert not_ok(judge_redis(attrs.evolve(REDIS, **facts))) == found


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({}, []),
        ({"version": "24.8.1.1"}, [("error", "version")]),
        ({"problem": "run `sessions migrate`"}, [("error", "migrations")]),
        ({"skew": timedelta(seconds=2)}, [("warning", "clock")]),
    ],
)
def test_what_is_wrong_with_a_clickhouse(facts: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert not_ok(judge_clickhouse(attrs.evolve(CLICKHOUSE_FACTS, **facts))) == found


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://user:hunter2@db:5432/sessions?password=hunter2", "postgresql://db:5432/sessions"),
        ("postgresql:///sessions?host=/tmp&password=hunter2", "postgresql:///sessions"),
        ("redis://:hunter2@h", "redis://h"),
        ("unix://:hunter2@/run/redis.sock", "unix:///run/redis.sock"),
        ("s2://:hunter2@basin", "s2://basin"),
        ("postgresql://user:hun/ter2@db/sessions", "the address given"),
        ("postgresql://user:12/hunter2@db/sessions", "the address given"),
        ("postgresql://user:12#hunter2@db/sessions", "the address given"),
        ("password=hunter2 host=db", "the address given"),
        ("postgresql://[hunter2", "the address given"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(url: str, text: str) -> None:
    assert shown(url) == text


def test_a_reason_is_in_our_words() -> None:
    assert reason(ConnectionRefusedError(111, SECRET)) == "connection refused"
    assert reason(ValueError(SECRET)) == "ValueError"


async def test_a_system_that_says_nothing_is_given_up_in_time() -> None:
    began = monotonic()
    with silent_server() as port:
        # The driver leaves a question about TLS, which it asks by default, without anybody to hear of its end.
        plain = attrs.evolve(scale(port), database_url=f"postgresql://u:{SECRET}@127.0.0.1:{port}/d?sslmode=disable")
        findings = await diagnose(plain, patience=timedelta(seconds=0.5))
    assert monotonic() - began < 15
    assert [(finding.health, finding.system, finding.check) for finding in findings] == [
        (Health.ERROR, system, "reachable") for system in SYSTEMS
    ]
    assert all("no answer in time" in finding.message for finding in findings), findings
    assert SECRET not in repr(findings)


async def test_a_system_that_is_not_there_is_told_by_its_address_without_its_password() -> None:
    findings = await diagnose(scale(1), patience=timedelta(seconds=5))
    assert [(finding.health, finding.system) for finding in findings] == [(Health.ERROR, name) for name in SYSTEMS]
    assert all("connection refused" in finding.message for finding in findings)
    assert SECRET not in repr(findings)


async def test_each_setting_that_is_missing_is_an_error_of_its_own() -> None:
    findings = await diagnose(Backends(profile="scale"))
    assert not_ok(findings) == [("error", "setting")] * 4
    assert [finding.system for finding in findings] == SYSTEMS


async def test_nothing_is_wrong_with_memory() -> None:
    assert not_ok(await diagnose(Backends(profile="memory"))) == []


async def test_a_directory_before_and_after_the_first_root_key(tmp_path: Path) -> None:
    backends = Backends(data=tmp_path / "data")
    assert not_ok(await diagnose(backends)) == []
    assert not (tmp_path / "data").exists()
    async with open_environments(backends, create=True) as environments:
        await environments.create(ENV_A, ROOT_KEY)
    assert not_ok(await diagnose(backends)) == []
    (tmp_path / "data" / "encryption.key").unlink()
    assert not_ok(await diagnose(backends)) == [("error", "key")]


@pytest.mark.needs_postgres
@pytest.mark.needs_redis
@pytest.mark.needs_s2
@pytest.mark.needs_clickhouse
async def test_everything_is_well(tmp_path: Path) -> None:
    async with open_backends("scale", tmp_path) as empty:
        backends = attrs.evolve(empty, clickhouse_url=CLICKHOUSE.get(), encryption_key=KEY)
        await migrate(backends)
        findings = await diagnose(backends)
        assert {finding.system for finding in findings} == set(SYSTEMS)
        known = {("warning", "durability"), ("warning", "replication")}  # a server for tests may lose what it has
        assert set(not_ok(findings)) <= known
        async with open_environments(backends) as environments:
            await environments.create(ENV_A, ROOT_KEY)
        assert set(not_ok(await diagnose(backends))) <= known
        other = attrs.evolve(backends, encryption_key=FernetCipher.generate_key().decode())
        assert ("error", "key") in not_ok(await diagnose(other))


@pytest.mark.needs_postgres
async def test_a_database_that_is_not_migrated_and_a_key_that_is_not_shared(tmp_path: Path) -> None:
    async with find_databases().bare() as url:
        backends = Backends(profile="postgres", database_url=url, data=tmp_path)
        findings = await diagnose(backends)
        assert {("error", "migrations"), ("error", "dispatcher")} <= set(not_ok(findings))
        assert any("run `sessions migrate`" in finding.message for finding in findings)
        await migrate(backends)
        findings = await diagnose(backends)
        assert ("warning", "key") in not_ok(findings)
        assert [finding.health for finding in findings if finding.check == "dispatcher"] == [Health.OK]
        assert not list(tmp_path.iterdir())


@pytest.mark.needs_clickhouse
async def test_lists_that_nobody_keeps_up_to_date_are_a_warning(tmp_path: Path) -> None:
    backends = Backends(data=tmp_path, clickhouse_url=CLICKHOUSE.get(), index="clickhouse")
    await migrate(backends)
    assert ("warning", "index") in not_ok(await diagnose(backends))
