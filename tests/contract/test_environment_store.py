"""What every store of environments guarantees."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from contract.makers import ENV_A, ENV_B, MILLISECOND, SECOND, START, at_once, make_environment
from sessions_core.domain.environment import Environment, EnvironmentType, KeyGrant, RootKey
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId
from sessions_core.errors import EnvironmentNotFoundError, InvalidError
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_core.testing import ManualClock

UNKNOWN = EnvironmentId("env_unknown")
HOUR = timedelta(hours=1)
KEY = "tr_dev_first-and-secret-äöü"
NEW_KEY = "tr_dev_second"


# --- create ---


@pytest.mark.parametrize("kind", EnvironmentType)
async def test_a_new_environment_is_opened_by_its_root_key(
    environment_store: EnvironmentStore, kind: EnvironmentType
) -> None:
    environment = Environment(
        id=EnvironmentId("env"), organization_id=OrganizationId("org"), project_id=ProjectId("proj"), type=kind
    )
    await environment_store.create(environment, KEY)
    assert await environment_store.find_grant(KEY) == KeyGrant(environment=environment)
    assert list(await environment_store.find_root_keys(environment.id)) == [RootKey(value=KEY)]
    assert await environment_store.list_all() == [environment]


async def test_environments_are_listed_oldest_first(environment_store: EnvironmentStore, clock: ManualClock) -> None:
    environments = [make_environment(f"env_{name}") for name in "cab"]
    for environment in environments:
        await environment_store.create(environment, f"key of {environment.id}")
        clock.advance(MILLISECOND)
    assert await environment_store.list_all() == environments


async def test_environments_may_share_organization_and_project(environment_store: EnvironmentStore) -> None:
    first = make_environment("env_a")
    second = Environment(
        id=EnvironmentId("env_b"),
        organization_id=first.organization_id,
        project_id=first.project_id,
        type=EnvironmentType.PRODUCTION,
    )
    await environment_store.create(first, KEY)
    await environment_store.create(second, NEW_KEY)
    assert len(await environment_store.list_all()) == 2


async def test_an_id_is_taken_once(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    with pytest.raises(InvalidError):
        await environment_store.create(ENV_A, NEW_KEY)
    assert await environment_store.find_grant(NEW_KEY) is None
    assert list(await environment_store.find_root_keys(ENV_A.id)) == [RootKey(value=KEY)]


async def test_a_key_is_taken_once_and_then_no_environment_is_stored(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    with pytest.raises(InvalidError):
        await environment_store.create(ENV_B, KEY)
    assert await environment_store.list_all() == [ENV_A]
    assert await environment_store.find_grant(KEY) == KeyGrant(environment=ENV_A)


async def test_of_10_concurrent_creates_of_one_environment_one_succeeds(environment_store: EnvironmentStore) -> None:
    async def create(number: int) -> bool:
        try:
            await environment_store.create(ENV_A, f"key {number}")
        except InvalidError:
            return False
        return True

    done = await at_once([partial(create, number) for number in range(10)])
    assert sum(done) == 1
    assert [key.value for key in await environment_store.find_root_keys(ENV_A.id)] == [f"key {done.index(True)}"]


@pytest.mark.parametrize("key", ["", "tr_dev", KEY.upper(), KEY + " ", "\x00", "\udcff", "k" * 10_000])
async def test_a_key_that_nobody_has_opens_nothing(environment_store: EnvironmentStore, key: str) -> None:
    await environment_store.create(ENV_A, KEY)
    assert await environment_store.find_grant(key) is None


async def test_an_unknown_environment_has_no_root_keys(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    assert list(await environment_store.find_root_keys(UNKNOWN)) == []


# --- rotation ---


async def test_after_a_rotation_the_new_key_is_current_and_the_old_one_works_for_its_grace(
    environment_store: EnvironmentStore, clock: ManualClock
) -> None:
    await environment_store.create(ENV_A, KEY)
    clock.advance(SECOND)
    await environment_store.rotate_root_key(ENV_A.id, NEW_KEY, grace=HOUR)
    ends_at = START + SECOND + HOUR
    assert await environment_store.find_grant(NEW_KEY) == KeyGrant(environment=ENV_A)
    assert await environment_store.find_grant(KEY) == KeyGrant(environment=ENV_A, expires_at=ends_at)
    keys = list(await environment_store.find_root_keys(ENV_A.id))
    assert keys == [RootKey(value=NEW_KEY), RootKey(value=KEY, expires_at=ends_at)]


async def test_a_rotated_key_ends_with_its_grace(environment_store: EnvironmentStore, clock: ManualClock) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.rotate_root_key(ENV_A.id, NEW_KEY, grace=HOUR)
    clock.advance(HOUR - MILLISECOND)
    assert await environment_store.find_grant(KEY) is not None
    assert len(await environment_store.find_root_keys(ENV_A.id)) == 2
    clock.advance(MILLISECOND)
    assert await environment_store.find_grant(KEY) is None
    assert list(await environment_store.find_root_keys(ENV_A.id)) == [RootKey(value=NEW_KEY)]


async def test_without_grace_a_rotated_key_ends_at_once(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.rotate_root_key(ENV_A.id, NEW_KEY, grace=timedelta())
    assert await environment_store.find_grant(KEY) is None


async def test_a_second_rotation_does_not_lengthen_the_first_ones_grace(
    environment_store: EnvironmentStore, clock: ManualClock
) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.rotate_root_key(ENV_A.id, NEW_KEY, grace=HOUR)
    clock.advance(SECOND)
    await environment_store.rotate_root_key(ENV_A.id, "third", grace=HOUR)
    first, *others = await environment_store.find_root_keys(ENV_A.id)
    assert first == RootKey(value="third")
    assert {key.value: key.expires_at for key in others} == {NEW_KEY: START + SECOND + HOUR, KEY: START + HOUR}


async def test_an_unknown_environment_cannot_be_changed(environment_store: EnvironmentStore) -> None:
    with pytest.raises(EnvironmentNotFoundError):
        await environment_store.rotate_root_key(UNKNOWN, NEW_KEY, grace=HOUR)
    with pytest.raises(EnvironmentNotFoundError):
        await environment_store.add_key(UNKNOWN, NEW_KEY, ["read"])
    assert await environment_store.find_grant(NEW_KEY) is None


# --- additional keys ---


@pytest.mark.parametrize(
    "scopes", [(), ("read:sessions",), ("write:sessions:a:b", "read:tasks:ü", "write:sessions:a:b")]
)
async def test_an_additional_key_has_its_scopes(environment_store: EnvironmentStore, scopes: tuple[str, ...]) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.add_key(ENV_A.id, "more", list(scopes))
    assert await environment_store.find_grant("more") == KeyGrant(environment=ENV_A, scopes=scopes)


async def test_an_additional_key_works_until_it_expires(
    environment_store: EnvironmentStore, clock: ManualClock
) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.add_key(ENV_A.id, "more", ["read"], expires_at=START + SECOND)
    grant = KeyGrant(environment=ENV_A, scopes=("read",), expires_at=START + SECOND)
    clock.advance(SECOND - MILLISECOND)
    assert await environment_store.find_grant("more") == grant
    clock.advance(MILLISECOND)
    assert await environment_store.find_grant("more") is None


async def test_additional_keys_are_no_root_keys_and_outlive_a_rotation(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.add_key(ENV_A.id, "more", ["read"])
    await environment_store.rotate_root_key(ENV_A.id, NEW_KEY, grace=timedelta())
    assert list(await environment_store.find_root_keys(ENV_A.id)) == [RootKey(value=NEW_KEY)]
    assert await environment_store.find_grant("more") == KeyGrant(environment=ENV_A, scopes=("read",))


async def test_keys_open_their_own_environment_only(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.create(ENV_B, "key of b")
    await environment_store.rotate_root_key(ENV_B.id, "new key of b", grace=HOUR)
    assert await environment_store.find_grant(KEY) == KeyGrant(environment=ENV_A)
    assert list(await environment_store.find_root_keys(ENV_A.id)) == [RootKey(value=KEY)]


# --- at rest ---


async def test_no_key_can_be_read_from_what_is_stored(
    environment_store: EnvironmentStore, is_readable_at_rest: Callable[[str], bool]
) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.rotate_root_key(ENV_A.id, NEW_KEY, grace=HOUR)
    await environment_store.add_key(ENV_A.id, "tr_dev_additional", ["read"])
    assert [key for key in (KEY, NEW_KEY, "tr_dev_additional") if is_readable_at_rest(key)] == []


async def test_a_root_key_is_not_shown_by_its_repr(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    assert KEY not in repr(await environment_store.find_root_keys(ENV_A.id))
    assert KEY not in repr(environment_store)
