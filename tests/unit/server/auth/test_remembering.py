"""What is remembered of credentials, for how long, and what is asked anew."""

from __future__ import annotations

from datetime import timedelta

import anyio
import anyio.lowlevel
import pytest

from harness.credentials import (
    KEY,
    NARROW_KEY,
    NEW_KEY,
    ONE,
    OTHER_KEY,
    NotedStore,
    Seconds,
    claims,
    encode,
    refusal,
)
from sessions_adapters.memory import InMemoryEnvironmentStore
from sessions_core.errors import StoreUnavailableError
from sessions_core.testing import ManualClock
from sessions_server.auth import tokens
from sessions_server.auth.authenticator import KEY_SECONDS, Authenticator
from sessions_server.auth.questions import Question
from sessions_server.problems import UnauthenticatedError


async def test_a_credential_is_remembered_once_however_it_is_spelled(auth: Authenticator) -> None:
    callers = [await auth.authenticate(f"Bearer {blanks}{KEY}{blanks}") for blanks in ("", " ", "\t", " \t ")]
    assert all(caller is callers[0] for caller in callers)
    assert auth.has_admitted(f"Bearer   {KEY}")


async def test_a_changed_token_is_refused_also_when_the_true_one_is_known(
    auth: Authenticator, clock: ManualClock
) -> None:
    token = encode(claims(clock))
    await auth.authenticate(token)
    head, body, signature = token.split(".")
    more = encode(claims(clock, scopes=["admin"])).split(".")[1]
    for wrong in (f"{head}.{more}.{signature}", f"{head}.{body}.{signature[:-2]}", f"{head}.{body}.{signature}x."):
        await refusal(auth, wrong)


async def test_a_known_token_ends_when_it_says(auth: Authenticator, clock: ManualClock) -> None:
    token = encode(claims(clock))
    await auth.authenticate(token)
    clock.advance(timedelta(seconds=599))
    assert auth.recall(token) is not None
    clock.advance(timedelta(seconds=1))
    assert await refusal(auth, token) == "Public Access Token is invalid"


async def test_tokens_of_a_rotated_key_work_through_its_grace_and_not_longer(
    auth: Authenticator, store: InMemoryEnvironmentStore, clock: ManualClock, monotonic: Seconds
) -> None:
    token = encode(claims(clock))
    await auth.authenticate(token)
    await store.rotate_root_key(ONE, NEW_KEY, grace=timedelta(seconds=100))
    monotonic.value += KEY_SECONDS + 0.1
    for credential in (token, KEY, NEW_KEY, encode(claims(clock), key=NEW_KEY)):
        assert (await auth.authenticate(credential)).environment.id == ONE
    clock.advance(timedelta(seconds=100))
    assert auth.recall(token) is None
    monotonic.value += KEY_SECONDS + 0.1
    await refusal(auth, token)
    await refusal(auth, KEY)
    assert (await auth.authenticate(NEW_KEY)).environment.id == ONE


async def test_a_rotation_without_grace_counts_within_a_second(
    auth: Authenticator, store: InMemoryEnvironmentStore, clock: ManualClock, monotonic: Seconds
) -> None:
    token = encode(claims(clock))
    await auth.authenticate(token)
    await auth.authenticate(KEY)
    await store.rotate_root_key(ONE, NEW_KEY, grace=timedelta(0))
    monotonic.value += KEY_SECONDS + 0.01
    assert auth.recall(token) is None
    assert auth.recall(KEY) is None
    await refusal(auth, token)
    await refusal(auth, KEY)


async def test_who_is_known_by_a_key_that_was_rotated_away_gets_no_token_of_the_new_one(
    auth: Authenticator, store: InMemoryEnvironmentStore, clock: ManualClock, monotonic: Seconds
) -> None:
    """Although for the rest of a second it is taken for good where nothing lasting is given."""
    token = encode(claims(clock))
    await auth.authenticate(token)  # reads the root keys, which are read anew a second later than the key is looked up
    monotonic.value += KEY_SECONDS / 2
    callers = [await auth.authenticate(KEY), await auth.authenticate(token)]
    await store.rotate_root_key(ONE, NEW_KEY, grace=timedelta())
    monotonic.value += KEY_SECONDS / 2 + 0.1
    assert auth.recall(KEY) is callers[0]
    for caller in callers:
        with pytest.raises(UnauthenticatedError):
            await auth.mint(caller, ("admin",), timedelta(hours=1))
    assert (await auth.root_keys(ONE))[0].value == NEW_KEY, "it would have been signed with this one"


async def test_a_key_that_was_just_revoked_mints_nothing(
    auth: Authenticator, store: InMemoryEnvironmentStore, monotonic: Seconds
) -> None:
    added = await store.add_key(ONE, NARROW_KEY, ["admin"])
    caller = await auth.authenticate(NARROW_KEY)
    monotonic.value += 0.1
    await auth.mint(caller, ("admin",), timedelta(hours=1))
    await store.revoke_key(ONE, added.id)
    monotonic.value += 0.1
    assert auth.recall(NARROW_KEY) is caller
    with pytest.raises(UnauthenticatedError):
        await auth.mint(caller, ("admin",), timedelta(hours=1))


@pytest.mark.parametrize("kind", ["root key", "additional key", "token"])
async def test_a_credential_is_confirmed_by_what_the_store_says_now(
    auth: Authenticator, store: InMemoryEnvironmentStore, clock: ManualClock, monotonic: Seconds, kind: str
) -> None:
    added = await store.add_key(ONE, NARROW_KEY, ["admin"])
    credential = {"root key": KEY, "additional key": NARROW_KEY, "token": encode(claims(clock))}[kind]
    await auth.authenticate(credential)
    monotonic.value += 0.1
    assert (await auth.confirm(credential)).header == f"Bearer {credential}"
    await store.revoke_key(ONE, added.id)
    await store.rotate_root_key(ONE, NEW_KEY, grace=timedelta())
    monotonic.value += 0.1
    assert auth.recall(credential) is not None
    with pytest.raises(UnauthenticatedError):
        await auth.confirm(credential)


async def test_a_key_in_its_grace_does_not_last(
    auth: Authenticator, store: InMemoryEnvironmentStore, clock: ManualClock, monotonic: Seconds
) -> None:
    plain, rolling = encode(claims(clock)), encode(claims(clock, rolling=True))
    assert [await auth.still_lasts(each) for each in (KEY, rolling, plain, NEW_KEY, None)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    await store.rotate_root_key(ONE, NEW_KEY, grace=timedelta(hours=1))
    monotonic.value += 0.1
    assert (await auth.authenticate(KEY)).lasts, "it is remembered so"
    assert [await auth.still_lasts(each) for each in (KEY, NEW_KEY)] == [False, True]


async def test_what_a_caller_mints_ends_with_the_key_as_it_is_now(
    auth: Authenticator, store: InMemoryEnvironmentStore, clock: ManualClock, monotonic: Seconds
) -> None:
    """A request that began before a rotation may mint after it, with the new key, and ends when the old one does."""
    before = await auth.authenticate(KEY)
    token = await auth.mint(before, ["admin"], timedelta(days=1), is_rolling=True)
    assert tokens.peek_claims(token) == {**(tokens.peek_claims(token) or {}), "rolling": True}
    await store.rotate_root_key(ONE, NEW_KEY, grace=timedelta(minutes=1))
    monotonic.value += KEY_SECONDS + 0.1
    minted = tokens.peek_claims(await auth.mint(before, ["admin"], timedelta(days=1), is_rolling=True)) or {}
    assert minted["exp"] == int(clock.now().timestamp()) + 60
    assert "rolling" not in minted


async def test_a_silent_store_confirms_nothing(
    auth: Authenticator, monotonic: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: NotedStore, __: str) -> None:
        raise StoreUnavailableError

    await auth.authenticate(KEY)
    monkeypatch.setattr(NotedStore, "find_grant", silent)
    monotonic.value += 0.1
    assert auth.recall(KEY) is not None
    with pytest.raises(StoreUnavailableError):
        await auth.confirm(KEY)
    assert not await auth.still_lasts(KEY)


async def test_what_is_known_is_not_read_again_within_a_second(
    auth: Authenticator, clock: ManualClock, monotonic: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = encode(claims(clock))
    for credential in (token, KEY):
        await auth.authenticate(credential)
    monkeypatch.setattr(auth, "environments", None)
    monotonic.value += KEY_SECONDS - 0.01
    for credential in (token, KEY):
        assert (await auth.authenticate(credential)).environment.id == ONE


async def test_many_requests_at_once_ask_the_store_once(
    auth: Authenticator, store: NotedStore, clock: ManualClock
) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(auth.authenticate, encode(claims(clock, scopes=[f"read:sessions:{number}"])))
            tasks.start_soon(auth.authenticate, OTHER_KEY)
    assert sorted(store.asked) == sorted([ONE, KEY, OTHER_KEY])


async def test_a_ring_that_is_at_hand_is_nobodys_question(auth: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A direct writer needs it for each batch."""
    keys = await auth.root_keys(ONE)
    monkeypatch.setattr(Question, "ask", None)
    assert await auth.root_keys(ONE) is keys


async def test_all_who_wait_for_a_silent_store_are_told_at_once(
    auth: Authenticator, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    async def silent(_: NotedStore, about: str) -> None:
        asked.append(about)
        await anyio.lowlevel.checkpoint()
        raise StoreUnavailableError

    async def is_silence(credential: str) -> None:
        with pytest.raises(StoreUnavailableError):
            await auth.authenticate(credential)

    monkeypatch.setattr(NotedStore, "find_grant", silent)
    monkeypatch.setattr(NotedStore, "find_root_keys", silent)
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(is_silence, encode(claims(clock, scopes=[f"read:sessions:{number}"])))
            tasks.start_soon(is_silence, OTHER_KEY)
    assert sorted(asked) == sorted([ONE, OTHER_KEY])


async def test_an_unchanged_key_keeps_a_token_verified(
    auth: Authenticator, clock: ManualClock, monotonic: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = encode(claims(clock))
    caller = await auth.authenticate(token)
    monkeypatch.setattr(tokens, "verify", None)
    monotonic.value += 5
    assert await auth.authenticate(token) is caller
