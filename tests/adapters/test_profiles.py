"""The embedded profile's directory: what is made in it, when, and what is refused."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from sessions_adapters.fernet import FernetCipher
from sessions_adapters.profiles import open_environments, open_sessions
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId
from sessions_core.errors import IncompatibleStoreError, InvalidError
from sessions_core.ports.environment_store import EnvironmentStore

ENVIRONMENT = Environment(
    id=EnvironmentId("env_1"),
    organization_id=OrganizationId("org"),
    project_id=ProjectId("proj"),
    type=EnvironmentType.DEVELOPMENT,
)
ROOT_KEY = "tr_dev_" + "a" * 24


Opening = Callable[[Path], AbstractAsyncContextManager[EnvironmentStore]]


@attrs.frozen
class Place:
    """A directory that does not exist yet, and its key."""

    data: Path

    @property
    def key(self) -> Path:
        return self.data / "encryption.key"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "data")


@asynccontextmanager
async def served(data: Path) -> AsyncIterator[EnvironmentStore]:
    async with open_sessions("embedded", data=data) as sessions:
        yield sessions.environments


async def store_a_root_key(data: Path) -> None:
    async with served(data) as environments:
        await environments.create(ENVIRONMENT, ROOT_KEY)


OPENINGS = pytest.mark.parametrize(
    "opening", [served, lambda data: open_environments(data=data)], ids=["owner", "guest"]
)


async def test_a_new_directory_gets_a_database_and_a_key(place: Place) -> None:
    await store_a_root_key(place.data)
    assert place.key.stat().st_mode & 0o777 == 0o600
    assert place.data.stat().st_mode & 0o777 == 0o700
    async with served(place.data) as environments:
        assert [key.value for key in await environments.find_root_keys(ENVIRONMENT.id)] == [ROOT_KEY]


async def test_no_key_is_made_before_there_is_a_root_key(place: Place) -> None:
    async with served(place.data) as environments:
        assert not place.key.exists()
        await environments.create(ENVIRONMENT, ROOT_KEY)
        assert place.key.exists()


async def test_a_key_that_was_given_is_used_instead_of_a_file(place: Place) -> None:
    given = FernetCipher.generate_key().decode()
    async with open_sessions("embedded", data=place.data, encryption_key=given) as sessions:
        await sessions.environments.create(ENVIRONMENT, ROOT_KEY)
    assert not place.key.exists()
    with pytest.raises(IncompatibleStoreError, match=r"encryption\.key is missing"):
        async with served(place.data):
            pass
    async with open_environments(data=place.data, encryption_key=given) as environments:
        assert [key.value for key in await environments.find_root_keys(ENVIRONMENT.id)] == [ROOT_KEY]


async def test_what_is_no_key_is_refused_at_once_and_not_shown(place: Place) -> None:
    with pytest.raises(InvalidError, match="SESSIONS_ENCRYPTION_KEY") as refusal:
        async with open_sessions("embedded", data=place.data, encryption_key="hunter2"):
            pass
    assert "hunter2" not in str(refusal.value)


@OPENINGS
async def test_a_lost_key_is_not_replaced(place: Place, opening: Opening) -> None:
    await store_a_root_key(place.data)
    kept = place.key.read_bytes()
    place.key.unlink()
    with pytest.raises(IncompatibleStoreError) as refusal:
        async with opening(place.data):
            pass
    assert str(place.key) in str(refusal.value)
    assert "is missing" in str(refusal.value)
    assert "restore the one from the backup" in str(refusal.value)
    assert not place.key.exists()
    place.key.touch(mode=0o600)
    place.key.write_bytes(kept)
    async with opening(place.data) as environments:
        assert [key.value for key in await environments.find_root_keys(ENVIRONMENT.id)] == [ROOT_KEY]


@OPENINGS
async def test_another_key_is_refused(place: Place, opening: Opening) -> None:
    await store_a_root_key(place.data)
    place.key.write_bytes(FernetCipher.generate_key())
    with pytest.raises(IncompatibleStoreError, match=r"encryption\.key is not the key .* restore the one"):
        async with opening(place.data):
            pass


@OPENINGS
@pytest.mark.parametrize("content", [b"", b"\xff\x00 no key", b"c2hvcnQ="])
async def test_a_broken_key_file_is_refused_and_kept(place: Place, opening: Opening, content: bytes) -> None:
    await store_a_root_key(place.data)
    place.key.write_bytes(content)
    with pytest.raises(IncompatibleStoreError, match=r"encryption\.key holds no encryption key; restore"):
        async with opening(place.data):
            pass
    assert place.key.read_bytes() == content


async def test_who_has_lost_the_key_for_good_can_begin_with_new_root_keys(place: Place) -> None:
    await store_a_root_key(place.data)
    place.key.unlink()
    with pytest.raises(IncompatibleStoreError) as refusal:
        async with served(place.data):
            pass
    statement = str(refusal.value).split('"')[1]
    with closing(sqlite3.connect(place.data / "sessions.db")) as connection:
        connection.execute(statement)
        connection.commit()
    async with open_environments(data=place.data) as environments:
        await environments.rotate_root_key(ENVIRONMENT.id, ROOT_KEY, grace=timedelta())
    async with served(place.data) as environments:
        assert [key.value for key in await environments.find_root_keys(ENVIRONMENT.id)] == [ROOT_KEY]


async def test_the_environments_of_a_mistyped_directory_are_refused_and_nothing_is_made(tmp_path: Path) -> None:
    for data in (tmp_path / "mistyped", tmp_path):
        with pytest.raises(IncompatibleStoreError, match=rf"{data / 'sessions.db'} does not exist"):
            async with open_environments(data=data):
                pass
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - the other way is refused in async functions


async def test_who_makes_environments_may_make_the_directory(place: Place) -> None:
    async with open_environments(data=place.data, create=True) as environments:
        await environments.create(ENVIRONMENT, ROOT_KEY)
    async with open_environments(data=place.data) as environments:
        assert await environments.list_all() == [ENVIRONMENT]
