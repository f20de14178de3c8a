"""Replacing the encryption key, in every profile that keeps root keys, under a server that goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import attrs
import pytest

from contract.makers import ENV_A, ENV_B, make_environment
from harness.backends import open_backends
from harness.databases import look
from sessions_adapters.fernet import FernetCipher
from sessions_adapters.profiles import (
    EMBEDDED,
    POSTGRES,
    Backends,
    Health,
    add_encryption_key,
    diagnose,
    open_environments,
    open_sessions,
)
from sessions_core.errors import IncompatibleStoreError, InvalidError
from sessions_core.ports.environment_store import EnvironmentStore

ROOT_KEY, OTHER_KEY = "tr_dev_" + "a" * 24, "tr_dev_" + "b" * 24
OLD, NEW = (FernetCipher.generate_key().decode() for _ in range(2))


@pytest.fixture(params=[EMBEDDED, pytest.param(POSTGRES, marks=pytest.mark.needs_postgres)])
async def backends(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Backends]:
    async with open_backends(request.param, tmp_path / "data") as opened:
        yield attrs.evolve(opened, data=tmp_path / "data")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def values(store: EnvironmentStore) -> list[str]:
    """Return the root keys of all environments."""
    environments = await store.list_all()
    return [key.value for environment in environments for key in await store.find_root_keys(environment.id)]


async def verdict(backends: Backends) -> tuple[Health, str]:
    """Return what the doctor says of the encryption key."""
    [finding] = [finding for finding in await diagnose(backends) if finding.check == "key"]
    return finding.health, finding.message


async def store_under_two_keys(backends: Backends) -> Backends:
    """Store a root key under the old encryption key, and one under the new; return what opens both."""
    both = attrs.evolve(backends, encryption_key=f"{NEW} {OLD}")
    async with open_environments(attrs.evolve(backends, encryption_key=OLD), create=True) as store:
        await store.create(ENV_A, ROOT_KEY)
    async with open_environments(both) as store:
        await store.create(ENV_B, OTHER_KEY)
    return both


async def test_old_keys_still_read_and_the_first_one_writes(backends: Backends) -> None:
    both = await store_under_two_keys(backends)
    async with open_environments(both) as store:
        assert await values(store) == [ROOT_KEY, OTHER_KEY]
    for one in (OLD, NEW):
        with pytest.raises(IncompatibleStoreError, match=r"not the key that was used before.*env re-encrypt"):
            async with open_environments(attrs.evolve(backends, encryption_key=one)):
                pass


async def test_after_re_encryption_the_new_key_suffices_and_the_old_one_opens_nothing(backends: Backends) -> None:
    both = await store_under_two_keys(backends)
    health, message = await verdict(both)
    assert (health, "env re-encrypt" in message) == (Health.WARNING, True)
    async with open_environments(both) as store:
        assert await store.reseal_root_keys() == 2
    assert (await verdict(both))[0] is Health.OK
    async with open_environments(attrs.evolve(backends, encryption_key=NEW)) as store:
        assert await values(store) == [ROOT_KEY, OTHER_KEY]
    with pytest.raises(IncompatibleStoreError):
        async with open_environments(attrs.evolve(backends, encryption_key=OLD)):
            pass


async def test_a_key_that_opens_not_all_of_them_changes_nothing(backends: Backends) -> None:
    only_new = attrs.evolve(backends, encryption_key=NEW)
    for environment, keys in ((ENV_A, NEW), (ENV_B, f"{OLD} {NEW}"), (make_environment("env_c"), f"{NEW} {OLD}")):
        async with open_environments(attrs.evolve(backends, encryption_key=keys), create=True) as store:
            await store.create(environment, f"key of {environment.id}")
    async with open_environments(only_new) as store:
        with pytest.raises(IncompatibleStoreError, match="another encryption key"):
            await store.reseal_root_keys()
    async with open_environments(attrs.evolve(backends, encryption_key=f"{NEW} {OLD}")) as store:
        assert len(await values(store)) == 3
    async with open_environments(only_new) as store:
        assert len(await store.find_root_keys(ENV_A.id)) == 1
        with pytest.raises(IncompatibleStoreError):
            await store.find_root_keys(ENV_B.id)


async def test_a_running_process_follows_a_new_key_in_the_file(backends: Backends) -> None:
    async with open_sessions(backends) as running:
        await running.environments.create(ENV_A, ROOT_KEY)
        assert await values(running.environments) == [ROOT_KEY]
        async with open_environments(backends) as store:
            add_encryption_key(backends)
            assert (await verdict(backends))[0] is Health.WARNING
            await store.reseal_root_keys()
        assert await values(running.environments) == [ROOT_KEY]
        await running.environments.create(ENV_B, OTHER_KEY)
    assert (await verdict(backends))[0] is Health.OK
    assert backends.data is not None
    path = backends.data / "encryption.key"
    current, _ = path.read_text().split()
    path.write_text(current)
    async with open_environments(backends) as store:
        assert await values(store) == [ROOT_KEY, OTHER_KEY]


async def test_a_key_in_the_settings_is_not_replaced_by_a_file(backends: Backends) -> None:
    given = attrs.evolve(backends, encryption_key=OLD)
    with pytest.raises(InvalidError, match="SESSIONS_ENCRYPTION_KEY"):
        add_encryption_key(given)
    assert backends.data is not None
    assert not (backends.data / "encryption.key").exists()


async def test_a_root_key_whose_grace_is_over_is_only_a_hash(backends: Backends) -> None:
    async with open_environments(backends, create=True) as store:
        await store.create(ENV_A, ROOT_KEY)
        await store.rotate_root_key(ENV_A.id, OTHER_KEY, grace=timedelta())
        assert await store.reseal_root_keys() == 1
    assert kept_keys(backends) == (2, 1)


async def test_a_rotation_beside_a_re_encryption_leaves_a_key_that_can_be_read(backends: Backends) -> None:
    """Whichever comes first: who rotates encrypts with the first key of the file, which is the new one already."""
    async with open_environments(backends, create=True) as store, open_environments(backends) as other:
        await store.create(ENV_A, ROOT_KEY)
        add_encryption_key(backends)
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                new_key = f"tr_dev_{number:024d}"
                tasks.start_soon(partial(other.rotate_root_key, ENV_A.id, new_key, grace=timedelta(hours=1)))
                tasks.start_soon(store.reseal_root_keys)
        assert await store.reseal_root_keys() == 6
    assert backends.data is not None
    path = backends.data / "encryption.key"
    path.write_text(path.read_text().split()[0])
    async with open_environments(backends) as store:
        assert sorted(await values(store)) == sorted([*(f"tr_dev_{number:024d}" for number in range(5)), ROOT_KEY])


def kept_keys(backends: Backends) -> tuple[int, int]:
    """Return how many keys are stored, and how many of them can be decrypted: what no port tells."""
    statement = "select count(*) as all_keys, count(sealed) as readable from {}access_key"
    if backends.database_url is not None:
        [row] = look(backends.database_url, statement.format("sessions."))
        return row["all_keys"], row["readable"]
    assert backends.data is not None
    with closing(sqlite3.connect(backends.data / "sessions.db")) as database:
        found: tuple[int, int] = database.execute(statement.format("")).fetchone()
        return found
