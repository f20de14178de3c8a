"""Who may open the file, and what is done to it then."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import timedelta

import attrs
import pytest

from sessions_adapters.fernet import FernetCipher
from sessions_adapters.sqlite import (
    SqliteBacklog,
    SqliteChannelLog,
    SqliteConfig,
    SqliteEnvironmentStore,
    SqliteSessionStore,
    open_database,
    schema,
)
from sessions_adapters.sqlite.schema import Migration, list_migrations
from sessions_core.domain.channel import Channel, NewRecord
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId
from sessions_core.errors import IncompatibleStoreError, StoreUnavailableError
from sessions_core.testing import ManualClock

LATEST = list_migrations()[-1].number


def query(config: SqliteConfig, statement: str) -> object:
    with closing(sqlite3.connect(config.path)) as connection:
        return connection.execute(statement).fetchone()[0]


def environment(name: str) -> Environment:
    return Environment(
        id=EnvironmentId(name),
        organization_id=OrganizationId("org"),
        project_id=ProjectId("proj"),
        type=EnvironmentType.DEVELOPMENT,
    )


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.number for migration in list_migrations()] == list(range(1, LATEST + 1))


async def test_a_new_file_gets_all_migrations_and_is_private(config: SqliteConfig, clock: ManualClock) -> None:
    nested = attrs.evolve(config, path=config.path.parent / "made" / "here.db")
    async with open_database(nested, clock=clock):
        assert nested.path.stat().st_mode & 0o777 == 0o600
        assert nested.path.with_name("here.db-wal").stat().st_mode & 0o777 == 0o600
    assert query(nested, "pragma user_version") == LATEST
    assert query(nested, "pragma journal_mode") == "wal"


async def test_opening_again_changes_nothing(config: SqliteConfig, clock: ManualClock, channel: Channel) -> None:
    async with open_database(config, clock=clock) as db:
        await SqliteChannelLog(db).append(channel, [NewRecord(b"kept")], guard=UNTOUCHED)
    async with open_database(config, clock=clock, migrate=False) as db:
        assert [record.body for record in (await SqliteChannelLog(db).read(channel, 0, 9)).records] == [b"kept"]


async def test_a_later_migration_updates_the_file(
    config: SqliteConfig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(config, clock=clock):
        pass
    later = Migration(LATEST + 1, "create table later (x);")
    monkeypatch.setattr(schema, "list_migrations", lambda: [*list_migrations(), later])
    with pytest.raises(IncompatibleStoreError, match=f"schema version {LATEST}.*run the migrations"):
        async with open_database(config, clock=clock, migrate=False):
            pass
    async with open_database(config, clock=clock):
        pass
    assert query(config, "pragma user_version") == LATEST + 1
    assert query(config, "select count(*) from later") == 0


async def test_a_migration_that_fails_leaves_nothing_behind(
    config: SqliteConfig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Migration(LATEST + 1, "create table half (x); create table session (x);")
    monkeypatch.setattr(schema, "list_migrations", lambda: [*list_migrations(), broken])
    with pytest.raises(StoreUnavailableError):
        async with open_database(config, clock=clock):
            pass
    assert query(config, "pragma user_version") == LATEST
    assert query(config, "select count(*) from sqlite_master where name = 'half'") == 0
    monkeypatch.undo()
    async with open_database(config, clock=clock):
        pass


async def test_a_newer_file_is_refused_with_both_versions(config: SqliteConfig, clock: ManualClock) -> None:
    async with open_database(config, clock=clock):
        pass
    with closing(sqlite3.connect(config.path)) as connection:
        connection.execute("pragma user_version = 99")
    with pytest.raises(
        IncompatibleStoreError, match=rf"version 99, but this software knows versions up to {LATEST}; install"
    ):
        async with open_database(config, clock=clock):
            pass


async def test_another_kind_of_file_is_refused(config: SqliteConfig, clock: ManualClock) -> None:
    config.path.write_bytes(b"not a database at all " * 100)
    with pytest.raises(IncompatibleStoreError, match="is not an SQLite database"):
        async with open_database(config, clock=clock):
            pass


async def test_a_folder_that_cannot_be_made_is_an_unavailable_store(config: SqliteConfig, clock: ManualClock) -> None:
    config.path.write_bytes(b"")
    with pytest.raises(StoreUnavailableError):
        async with open_database(attrs.evolve(config, path=config.path / "below.db"), clock=clock):
            pass


async def test_a_second_owner_is_refused_with_path_and_process(config: SqliteConfig, clock: ManualClock) -> None:
    async with open_database(config, clock=clock):
        with pytest.raises(IncompatibleStoreError) as refusal:
            async with open_database(config, clock=clock):
                pass
        assert str(config.path) in str(refusal.value)
        assert f"process {os.getpid()}" in str(refusal.value)
    async with open_database(config, clock=clock):
        pass


async def test_a_failed_opening_lets_go_of_the_file(config: SqliteConfig, clock: ManualClock) -> None:
    config.path.write_bytes(b"not a database at all " * 100)
    with pytest.raises(IncompatibleStoreError):
        async with open_database(config, clock=clock):
            pass
    config.path.unlink()
    async with open_database(config, clock=clock):
        pass


async def test_environments_can_be_used_beside_the_owner(config: SqliteConfig, clock: ManualClock) -> None:
    cipher = FernetCipher(FernetCipher.generate_key())
    async with (
        open_database(config, clock=clock, cipher=cipher) as owner,
        open_database(attrs.evolve(config, owner=False), clock=clock, cipher=cipher) as guest,
    ):
        await SqliteEnvironmentStore(guest).create(environment("env_1"), "tr_dev_key")
        grant = await SqliteEnvironmentStore(owner).find_grant("tr_dev_key")
        assert grant is not None
        assert grant.environment == environment("env_1")
        await SqliteEnvironmentStore(owner).create(environment("env_2"), "tr_dev_other")
        assert await SqliteEnvironmentStore(guest).list_all() == [environment("env_1"), environment("env_2")]


async def test_a_guest_may_use_nothing_else(config: SqliteConfig, clock: ManualClock) -> None:
    async with open_database(attrs.evolve(config, owner=False), clock=clock) as guest:
        for adapter in (SqliteChannelLog, SqliteSessionStore, SqliteBacklog):
            with pytest.raises(IncompatibleStoreError, match="without owning it"):
                adapter(guest)


async def test_a_guest_may_make_the_file_but_does_not_migrate_under_an_owner(
    config: SqliteConfig, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = attrs.evolve(config, owner=False, busy_timeout=timedelta(milliseconds=50))
    async with open_database(guest, clock=clock):
        pass
    async with open_database(config, clock=clock):
        later = Migration(LATEST + 1, "create table later (x);")
        monkeypatch.setattr(schema, "list_migrations", lambda: [*list_migrations(), later])
        with pytest.raises(IncompatibleStoreError, match="in use by process"):
            async with open_database(guest, clock=clock):
                pass
        monkeypatch.undo()
    assert query(config, "pragma user_version") == LATEST


async def test_root_keys_need_a_cipher_and_are_not_in_the_file(config: SqliteConfig, clock: ManualClock) -> None:
    cipher = FernetCipher(FernetCipher.generate_key())
    async with open_database(config, clock=clock) as db:
        with pytest.raises(IncompatibleStoreError, match="without an encryption key"):
            await SqliteEnvironmentStore(db).create(environment("env_1"), "tr_dev_secretsecret")
    async with open_database(config, clock=clock, cipher=cipher) as db:
        await SqliteEnvironmentStore(db).create(environment("env_1"), "tr_dev_secretsecret")
        await SqliteEnvironmentStore(db).add_key(EnvironmentId("env_1"), "tr_add_secretsecret", ["read"])
    assert b"secretsecret" not in config.path.read_bytes()
    async with open_database(config, clock=clock, cipher=FernetCipher(FernetCipher.generate_key())) as db:
        with pytest.raises(IncompatibleStoreError, match="another encryption key"):
            await SqliteEnvironmentStore(db).find_root_keys(EnvironmentId("env_1"))
        assert await SqliteEnvironmentStore(db).find_grant("tr_dev_secretsecret") is not None
