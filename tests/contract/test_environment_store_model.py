"""Random calls to a store of environments, compared with two dictionaries."""

from __future__ import annotations

from datetime import datetime

import attrs
import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from contract.adapters import Case, cases_with
from contract.machines import AdapterMachine, run_machine
from contract.makers import ENV_A, ENV_B, SECOND, make_environment
from sessions_core.domain.environment import (
    USE_PRECISION,
    AdditionalKey,
    Environment,
    KeyGrant,
    RootKey,
    key_hash,
    key_id_of,
)
from sessions_core.domain.ids import EnvironmentId
from sessions_core.errors import AccessKeyNotFoundError, EnvironmentNotFoundError, InvalidError

ENVIRONMENTS = [ENV_A, ENV_B, make_environment("env_c")]
environments = st.sampled_from(ENVIRONMENTS)
keys = st.sampled_from([f"tr_dev_{name}" for name in "abcdef"])
names = st.sampled_from(["", "ci", "ü"])
seconds = st.integers(0, 4)
scopes = st.lists(st.sampled_from(["read", "write:sessions:ü", ""]), max_size=2).map(tuple)


@attrs.define
class Key:
    """What is expected of one key. Scopes are None for a root key."""

    environment: Environment
    scopes: tuple[str, ...] | None
    ends_at: datetime | None = None
    listed: AdditionalKey | None = None

    def is_valid(self, now: datetime) -> bool:
        is_revoked = self.listed is not None and self.listed.revoked_at is not None
        return not is_revoked and (self.ends_at is None or self.ends_at > now)


class EnvironmentStoreMachine(AdapterMachine):
    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__(case, portal)
        assert self.adapters.environment_store is not None
        self.store = self.adapters.environment_store
        self.keys: dict[str, Key] = {}
        self.current: dict[EnvironmentId, str] = {}

    @rule(environment=environments, key=keys)
    def create(self, environment: Environment, key: str) -> None:
        is_taken = environment.id in self.current or key in self.keys
        assert self.answer(self.store.create, environment, key) == (InvalidError if is_taken else None)
        if not is_taken:
            self.keys[key] = Key(environment, None)
            self.current[environment.id] = key

    @rule(environment=environments, key=keys, grace=seconds)
    def rotate_root_key(self, environment: Environment, key: str, grace: int) -> None:
        refusal = self._refusal(environment, key)
        assert self.answer(self.store.rotate_root_key, environment.id, key, grace=grace * SECOND) == refusal
        if refusal is None:
            self.keys[self.current[environment.id]].ends_at = self.clock.now() + grace * SECOND
            self.keys[key] = Key(environment, None)
            self.current[environment.id] = key

    @rule(environment=environments, key=keys, allowed=scopes, ends=st.none() | seconds, name=names)
    def add_key(
        self, environment: Environment, key: str, allowed: tuple[str, ...], ends: int | None, name: str
    ) -> None:
        ends_at = None if ends is None else self.clock.now() + ends * SECOND
        refusal = self._refusal(environment, key)
        added = AdditionalKey(
            id=key_id_of(key_hash(key)),
            environment_id=environment.id,
            name=name,
            scopes=allowed,
            created_at=self.clock.now(),
            expires_at=ends_at,
        )
        answer = self.answer(self.store.add_key, environment.id, key, allowed, expires_at=ends_at, name=name)
        assert answer == (refusal or added)
        if refusal is None:
            self.keys[key] = Key(environment, allowed, ends_at, added)

    @rule(environment=environments, key=keys)
    def revoke_key(self, environment: Environment, key: str) -> None:
        known, listed = self._additional(environment, key)
        answer = self.answer(self.store.revoke_key, environment.id, key_id_of(key_hash(key)))
        if listed is None:
            assert answer == AccessKeyNotFoundError
            return
        known.listed = attrs.evolve(listed, revoked_at=listed.revoked_at or self.clock.now())
        assert answer == known.listed

    @rule(environment=environments, key=keys)
    def record_use(self, environment: Environment, key: str) -> None:
        known, listed = self._additional(environment, key)
        assert self.answer(self.store.record_use, environment.id, key_id_of(key_hash(key))) is None
        if listed is None:
            return
        if listed.last_used_at is None or listed.last_used_at <= self.clock.now() - USE_PRECISION:
            known.listed = attrs.evolve(listed, last_used_at=self.clock.now())

    @rule(environment=environments, key=keys, after=st.sampled_from([0, 1, 299, 300, 301]))
    def use_twice(self, environment: Environment, key: str, after: int) -> None:
        self.create(environment, f"root key of {environment.id}")
        self.add_key(environment, key, ("read",), None, "ci")
        self.record_use(environment, key)
        self.clock.advance(after * SECOND)
        self.record_use(environment, key)
        self.list_keys(environment)

    def _additional(self, environment: Environment, key: str) -> tuple[Key, AdditionalKey | None]:
        known = self.keys.get(key) or Key(environment, None)
        return known, known.listed if known.environment == environment else None

    @rule()
    def reseal_root_keys(self) -> None:
        valid = [key for key in self.keys.values() if key.scopes is None and key.is_valid(self.clock.now())]
        assert self.answer(self.store.reseal_root_keys) == len(valid)

    def _refusal(self, environment: Environment, key: str) -> type[Exception] | None:
        if environment.id not in self.current:
            return EnvironmentNotFoundError
        return InvalidError if key in self.keys else None

    @rule(key=keys)
    def find_grant(self, key: str) -> None:
        known = self.keys.get(key)
        expected = None
        if known is not None and known.is_valid(self.clock.now()):
            expected = KeyGrant(
                environment=known.environment,
                scopes=known.scopes,
                expires_at=known.ends_at,
                key_id=None if known.listed is None else known.listed.id,
            )
        assert self.answer(self.store.find_grant, key) == expected

    @rule(environment=environments)
    def find_root_keys(self, environment: Environment) -> None:
        found: list[RootKey] = list(self.answer(self.store.find_root_keys, environment.id))
        valid = {
            value: key.ends_at
            for value, key in self.keys.items()
            if key.environment == environment and key.scopes is None and key.is_valid(self.clock.now())
        }
        assert [key.value for key in found[:1]] == [self.current[environment.id]] if valid else found == []
        assert {key.value: key.expires_at for key in found} == valid
        assert len(found) == len(valid)

    @rule(by=st.integers(1, 3) | st.just(USE_PRECISION // SECOND))
    def move_the_clock(self, by: int) -> None:
        self.clock.advance(by * SECOND)

    @rule(environment=environments)
    def list_keys(self, environment: Environment) -> None:
        expected = [key.listed for key in self.keys.values() if key.environment == environment and key.listed]
        is_there = environment.id in self.current
        assert self.answer(self.store.list_keys, environment.id) == (expected if is_there else EnvironmentNotFoundError)

    @invariant()
    def all_are_listed_oldest_first(self) -> None:
        expected = [next(one for one in ENVIRONMENTS if one.id == name) for name in self.current]
        assert self.answer(self.store.list_all) == expected


@pytest.mark.parametrize("subject", cases_with(["environment_store"], backends=["asyncio"]), ids=str)
def test_a_store_of_environments_does_what_dictionaries_do(subject: Case) -> None:
    run_machine(EnvironmentStoreMachine, subject)
