"""What every store of environments guarantees."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import attrs
import pytest

from contract.makers import ENV_A, ENV_B, MILLISECOND, SECOND, START, at_once, make_environment
from sessions_core.domain.environment import (
    USE_PRECISION,
    AdditionalKey,
    Environment,
    EnvironmentType,
    KeyGrant,
    RootKey,
    key_hash,
    key_id_of,
)
from sessions_core.domain.ids import AccessKeyId, EnvironmentId, OrganizationId, ProjectId
from sessions_core.errors import AccessKeyNotFoundError, EnvironmentNotFoundError, InvalidError
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


async def test_a_second_rotation_without_grace_ends_the_first_ones_grace_too(
    environment_store: EnvironmentStore, clock: ManualClock
) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.create(ENV_B, "key of b")
    for environment_id in (ENV_A.id, ENV_B.id):
        await environment_store.rotate_root_key(environment_id, f"second of {environment_id}", grace=HOUR)
    clock.advance(SECOND)
    await environment_store.rotate_root_key(ENV_A.id, "third", grace=timedelta())
    assert list(await environment_store.find_root_keys(ENV_A.id)) == [RootKey(value="third")]
    assert await environment_store.find_grant(KEY) is None
    assert await environment_store.find_grant("key of b") is not None, "which is another environment's"


async def test_an_unknown_environment_cannot_be_changed(environment_store: EnvironmentStore) -> None:
    with pytest.raises(EnvironmentNotFoundError):
        await environment_store.rotate_root_key(UNKNOWN, NEW_KEY, grace=HOUR)
    with pytest.raises(EnvironmentNotFoundError):
        await environment_store.add_key(UNKNOWN, NEW_KEY, ["read"])
    with pytest.raises(EnvironmentNotFoundError):
        await environment_store.list_keys(UNKNOWN)
    assert await environment_store.find_grant(NEW_KEY) is None


# --- additional keys ---


def grant(key: AdditionalKey) -> KeyGrant:
    return KeyGrant(environment=ENV_A, scopes=key.scopes, expires_at=key.expires_at, key_id=key.id)


@pytest.mark.parametrize(
    "scopes", [(), ("read:sessions",), ("write:sessions:a:b", "read:tasks:ü", "write:sessions:a:b")]
)
async def test_an_additional_key_has_its_scopes(environment_store: EnvironmentStore, scopes: tuple[str, ...]) -> None:
    await environment_store.create(ENV_A, KEY)
    added = await environment_store.add_key(ENV_A.id, "more", list(scopes))
    assert added.scopes == scopes
    assert await environment_store.find_grant("more") == grant(added)


async def test_an_additional_key_works_until_it_expires(
    environment_store: EnvironmentStore, clock: ManualClock
) -> None:
    await environment_store.create(ENV_A, KEY)
    added = await environment_store.add_key(ENV_A.id, "more", ["read"], expires_at=START + SECOND)
    assert added.expires_at == START + SECOND
    clock.advance(SECOND - MILLISECOND)
    assert await environment_store.find_grant("more") == grant(added)
    clock.advance(MILLISECOND)
    assert await environment_store.find_grant("more") is None


async def test_additional_keys_are_no_root_keys_and_outlive_a_rotation(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    added = await environment_store.add_key(ENV_A.id, "more", ["read"])
    await environment_store.rotate_root_key(ENV_A.id, NEW_KEY, grace=timedelta())
    assert list(await environment_store.find_root_keys(ENV_A.id)) == [RootKey(value=NEW_KEY)]
    assert await environment_store.find_grant("more") == grant(added)


async def test_additional_keys_are_listed_oldest_first_whatever_has_become_of_them(
    environment_store: EnvironmentStore, clock: ManualClock
) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.create(ENV_B, "key of b")
    assert await environment_store.list_keys(ENV_A.id) == []
    added = []
    for name in ("über", "", "a"):
        ends_at = START + SECOND if name == "" else None
        added.append(
            await environment_store.add_key(ENV_A.id, f"k{name}", [f"read:{name}"], name=name, expires_at=ends_at)
        )
        clock.advance(SECOND)
    revoked = await environment_store.revoke_key(ENV_A.id, added[2].id)
    assert await environment_store.list_keys(ENV_A.id) == [added[0], added[1], revoked]
    assert [key.created_at for key in added] == [START, START + SECOND, START + 2 * SECOND]
    assert [key.name for key in added] == ["über", "", "a"]
    assert len({key.id for key in added}) == 3
    assert await environment_store.list_keys(ENV_B.id) == []


async def test_a_revoked_key_opens_nothing_and_stays_revoked_since_then(
    environment_store: EnvironmentStore, clock: ManualClock
) -> None:
    await environment_store.create(ENV_A, KEY)
    added = await environment_store.add_key(ENV_A.id, "more", ["read"])
    other = await environment_store.add_key(ENV_A.id, "other", ["read"])
    clock.advance(SECOND)
    revoked = await environment_store.revoke_key(ENV_A.id, added.id)
    assert revoked == attrs.evolve(added, revoked_at=START + SECOND)
    clock.advance(SECOND)
    assert await environment_store.revoke_key(ENV_A.id, added.id) == revoked
    assert await environment_store.find_grant("more") is None
    assert await environment_store.find_grant("other") == grant(other)
    with pytest.raises(InvalidError):
        await environment_store.add_key(ENV_A.id, "more", ["read"])


@pytest.mark.parametrize("key_id", ["", "key_", "key_%", "more", "key_" + "0" * 24, "key_" + "a" * 23, "\udcff\x00"])
async def test_what_is_no_additional_key_cannot_be_revoked_or_used(
    environment_store: EnvironmentStore, key_id: str
) -> None:
    await environment_store.create(ENV_A, KEY)
    added = await environment_store.add_key(ENV_A.id, "more", ["read"])
    with pytest.raises(AccessKeyNotFoundError):
        await environment_store.revoke_key(ENV_A.id, AccessKeyId(key_id))
    await environment_store.record_use(ENV_A.id, AccessKeyId(key_id))
    assert await environment_store.list_keys(ENV_A.id) == [added]


async def test_a_root_key_is_not_revoked_as_an_additional_one(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    with pytest.raises(AccessKeyNotFoundError):
        await environment_store.revoke_key(ENV_A.id, key_id_of(key_hash(KEY)))
    assert await environment_store.find_grant(KEY) is not None


async def test_the_keys_of_another_environment_cannot_be_revoked_or_used(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.create(ENV_B, "key of b")
    added = await environment_store.add_key(ENV_A.id, "more", ["read"])
    for stranger in (ENV_B.id, UNKNOWN, EnvironmentId("\udcff\x00")):
        with pytest.raises(AccessKeyNotFoundError):
            await environment_store.revoke_key(stranger, added.id)
        await environment_store.record_use(stranger, added.id)
    assert await environment_store.list_keys(ENV_A.id) == [added]


async def test_uses_are_remembered_at_most_every_five_minutes(
    environment_store: EnvironmentStore, clock: ManualClock
) -> None:
    await environment_store.create(ENV_A, KEY)
    added = await environment_store.add_key(ENV_A.id, "more", ["read"])

    async def use() -> datetime | None:
        await environment_store.record_use(ENV_A.id, added.id)
        [key] = await environment_store.list_keys(ENV_A.id)
        return key.last_used_at

    assert added.last_used_at is None
    clock.advance(SECOND)
    assert await use() == START + SECOND
    clock.advance(USE_PRECISION - MILLISECOND)
    assert await use() == START + SECOND
    clock.advance(MILLISECOND)
    assert await use() == START + SECOND + USE_PRECISION


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("x" * 257, ["read"]),
        ("\x00", ["read"]),
        ("\udcff", ["read"]),
        ("x", ["\x00"]),
        ("x", ["\udcff"]),
        ("x", ["r" * 513]),
        ("x", ["read"] * 101),
    ],
    ids=range(7),
)
async def test_names_and_scopes_have_to_be_storable(
    environment_store: EnvironmentStore, name: str, scopes: list[str]
) -> None:
    await environment_store.create(ENV_A, KEY)
    with pytest.raises(InvalidError):
        await environment_store.add_key(ENV_A.id, "more", scopes, name=name)
    assert await environment_store.list_keys(ENV_A.id) == []
    assert await environment_store.find_grant("more") is None


async def test_keys_open_their_own_environment_only(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.create(ENV_B, "key of b")
    await environment_store.rotate_root_key(ENV_B.id, "new key of b", grace=HOUR)
    assert await environment_store.find_grant(KEY) == KeyGrant(environment=ENV_A)
    assert list(await environment_store.find_root_keys(ENV_A.id)) == [RootKey(value=KEY)]


# --- at rest ---


async def test_root_keys_that_are_encrypted_anew_are_the_same(
    environment_store: EnvironmentStore, clock: ManualClock
) -> None:
    assert await environment_store.reseal_root_keys() == 0
    await environment_store.create(ENV_A, KEY)
    await environment_store.create(ENV_B, "key of b")
    added = await environment_store.add_key(ENV_A.id, "more", ["read"])
    await environment_store.rotate_root_key(ENV_A.id, NEW_KEY, grace=HOUR)
    before = [list(await environment_store.find_root_keys(one.id)) for one in (ENV_A, ENV_B)]
    assert await environment_store.reseal_root_keys() == 3
    assert [list(await environment_store.find_root_keys(one.id)) for one in (ENV_A, ENV_B)] == before
    clock.advance(HOUR)
    assert await environment_store.reseal_root_keys() == 2, "the grace of one is over"
    assert await environment_store.find_grant(KEY) is None
    assert await environment_store.find_grant("more") == grant(added)
    with pytest.raises(InvalidError):
        await environment_store.rotate_root_key(ENV_A.id, KEY, grace=HOUR)


async def test_no_key_can_be_read_from_what_is_stored(
    environment_store: EnvironmentStore, is_readable_at_rest: Callable[[str], bool]
) -> None:
    await environment_store.create(ENV_A, KEY)
    await environment_store.rotate_root_key(ENV_A.id, NEW_KEY, grace=HOUR)
    await environment_store.add_key(ENV_A.id, "tr_dev_additional", ["read"])
    await environment_store.reseal_root_keys()
    assert [key for key in (KEY, NEW_KEY, "tr_dev_additional") if is_readable_at_rest(key)] == []


async def test_a_root_key_is_not_shown_by_its_repr(environment_store: EnvironmentStore) -> None:
    await environment_store.create(ENV_A, KEY)
    assert KEY not in repr(await environment_store.find_root_keys(ENV_A.id))
    assert KEY not in repr(environment_store)
