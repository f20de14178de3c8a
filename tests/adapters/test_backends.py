"""Choosing systems: what is missing or wrong is named, each group of ports can be chosen by itself, nothing is left open."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from contract.makers import ENV_A, initial, make_session
from harness.backends import SHARED, open_backends, with_redis_and_s2
from harness.clickhouse import CLICKHOUSE
from sessions_adapters.clickhouse import ClickHouseConfig, ClickHouseIndexWriter, open_database
from sessions_adapters.profiles import Backends, migrate, open_sessions
from sessions_core.domain.channel import Io
from sessions_core.domain.pagination import PageRequest, SessionFilter
from sessions_core.errors import IncompatibleStoreError, InvalidError
from sessions_core.facade import Sessions
from sessions_core.ports.session_index import IndexRow

POSTGRES_URL = "postgresql://sessions:hunter2@127.0.0.1:1/none"
REDIS_URL = "redis://:hunter2@127.0.0.1:1"
S2_URL = "s2://:hunter2@a-basin-of-ours"


def systems_of(sessions: Sessions) -> dict[str, str]:
    """Return from which package each group of ports is."""
    ports = sessions.ports
    groups = {"store": ports.sessions, "log": ports.log, "index": ports.index, "waits": ports.wait_registry}
    return {group: type(port).__module__.split(".")[1] for group, port in groups.items()}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"profile": "embedded"}, "SESSIONS_DATA"),
        ({"profile": "postgres"}, "SESSIONS_DATABASE_URL"),
        ({"profile": "scale"}, "SESSIONS_DATABASE_URL"),
        ({"profile": "memory", "index": "clickhouse"}, "SESSIONS_CLICKHOUSE_URL"),
    ],
)
async def test_a_setting_that_is_missing_is_named(given: dict[str, Any], missing: str) -> None:
    with pytest.raises(InvalidError, match=rf"\({missing}\) must"):
        async with open_sessions(Backends(**given)):
            pass


@pytest.mark.parametrize(("url", "kind"), [("s2_url", "s2"), ("redis_url", "redis")])
def test_scale_needs_s2_and_redis(url: str, kind: str) -> None:
    backends = Backends(profile="scale", database_url=POSTGRES_URL)
    with pytest.raises(InvalidError, match=rf"SESSIONS_{url.upper()}\) must be set: the profile scale needs it"):
        getattr(backends, kind)()


@pytest.mark.parametrize(
    ("setting", "value", "kind"),
    [
        ("database_url", "mysql://u:hunter2@h/d", "postgres"),
        ("database_url", "postgresql+asyncpg://u:hunter2@h/d", "postgres"),
        ("s2_url", "https://:hunter2@basin", "s2"),
        ("redis_url", "http://:hunter2@h", "redis"),
        ("clickhouse_url", "clickhouse://u:hunter2@h", "clickhouse"),
        ("database_url", "postgresql://u:hunter2#more@h/d", "postgres"),
        ("database_url", "postgresql://u:hunter2/more@h/d", "postgres"),
        ("database_url", "postgresql://u:1/hunter2@h/d", "postgres"),
        ("database_url", "postgresql://u:hunter2@h:port/d", "postgres"),
        ("database_url", "postgresql://u:hunter2@one:5432,two:port/d", "postgres"),
        ("redis_url", "redis://:hunter2#more@h:6379", "redis"),
        ("clickhouse_url", "http://u:hunter2?more@h:8123", "clickhouse"),
        ("clickhouse_url", "http://u:hunter2@[h:8123", "clickhouse"),
    ],
)
def test_a_url_that_is_wrong_is_refused_by_the_name_of_its_setting_and_not_shown(
    setting: str, value: str, kind: str
) -> None:
    given: dict[str, Any] = {setting: value}
    backends = Backends(profile="postgres", **given)
    with pytest.raises(InvalidError, match=f"SESSIONS_{setting.upper()}") as refusal:
        getattr(backends, kind)()
    assert "hunter2" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter%232@h/d",
        "postgres:///d?host=/run/postgresql",
        "postgresql://u:p@one:5432,two:5433/d?target_session_attrs=read-write",
        "postgresql://u:p@[::1]:5432/d",
    ],
)
def test_a_url_that_postgres_takes_is_taken(url: str) -> None:
    assert Backends(profile="postgres", database_url=url).postgres().url == url


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"profile": "cloud"}, r"\(SESSIONS_PROFILE\) must be one of memory, embedded, postgres, scale"),
        ({"index": "redis"}, r"\(SESSIONS_INDEX\) must be one of store, clickhouse"),
        ({"profile": "embedded", "database_url": POSTGRES_URL}, "profile embedded does not use"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        Backends(**given)


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({"profile": "scale"}, "clickhouse"),
        ({"profile": "scale", "index": "store"}, "store"),
        ({"profile": "postgres"}, "store"),
        ({}, "store"),
    ],
)
def test_what_lists_are_read_from(given: dict[str, Any], index: str) -> None:
    assert Backends(**given).index == index


def test_no_secret_is_shown() -> None:
    backends = Backends(
        profile="scale", database_url=POSTGRES_URL, redis_url=REDIS_URL, s2_url=S2_URL, encryption_key="hunter2"
    )
    assert "hunter2" not in repr(backends)


async def test_backends_leave_nothing_to_be_said_beside_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="already says"):
        async with open_sessions(Backends(data=tmp_path), url=POSTGRES_URL):
            pass


async def test_a_store_has_everything(tmp_path: Path) -> None:
    async with open_sessions("embedded", data=tmp_path) as sessions:
        assert systems_of(sessions) == {"store": "sqlite", "log": "sqlite", "index": "sqlite", "waits": "memory"}


@pytest.mark.needs_redis
@pytest.mark.needs_s2
async def test_channels_and_wake_ups_can_be_taken_out_of_any_store(tmp_path: Path) -> None:
    async with open_sessions(with_redis_and_s2(Backends(data=tmp_path))) as sessions:
        assert systems_of(sessions) == {"store": "sqlite", "log": "s2", "index": "sqlite", "waits": "redis"}


@pytest.mark.parametrize("profile", SHARED)
async def test_the_shared_profiles(profile: str, tmp_path: Path) -> None:
    beside = {"log": "s2", "waits": "redis"} if profile == "scale" else {}
    store = dict.fromkeys(("store", "log", "index", "waits"), "postgres")
    async with open_backends(profile, tmp_path) as backends, open_sessions(backends) as sessions:
        assert systems_of(sessions) == store | beside
        created = make_session("one", at=sessions.clock.now())
        session = (await sessions.ports.sessions.create(created, initial(created))).session
        await sessions.channels.append_text(session, Io.IN, "hello")
        records = (await sessions.channels.records(session.channel(Io.IN), 0)).records
        assert b"hello" in records[-1].body


@pytest.mark.needs_clickhouse
async def test_lists_can_be_read_from_clickhouse_once_it_is_migrated_and_written(tmp_path: Path) -> None:
    backends = Backends(data=tmp_path, clickhouse_url=CLICKHOUSE.get(), index="clickhouse")
    applied = list[str]()
    await migrate(backends, applied.append)
    await migrate(backends, lambda name: pytest.fail(f"{name} was applied again"))
    assert all(name.startswith("ClickHouse ") for name in applied)
    async with open_sessions(backends) as sessions:
        created = make_session("one", at=sessions.clock.now())
        session = (await sessions.ports.sessions.create(created, initial(created))).session
        async with open_database(ClickHouseConfig(url=CLICKHOUSE.get())) as database:
            await ClickHouseIndexWriter(database).write([IndexRow(session, version=1)])
        page = await sessions.sessions.list_sessions(ENV_A, SessionFilter(environment_id=ENV_A.id), PageRequest())
        assert session.id in [item.id for item in page.items]


@pytest.mark.needs_clickhouse
async def test_an_index_that_is_not_migrated_names_the_command(tmp_path: Path) -> None:
    backends = Backends(data=tmp_path, clickhouse_url=CLICKHOUSE.get(), index="clickhouse")
    config = backends.clickhouse()
    assert config is not None
    async with open_database(config) as database:
        await database.run(lambda client: client.command(f"DROP DATABASE IF EXISTS {config.database} SYNC"))
    with pytest.raises(IncompatibleStoreError, match="run `sessions migrate`"):
        async with open_sessions(backends):
            pass
