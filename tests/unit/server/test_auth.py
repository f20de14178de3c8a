"""From the Authorization header to the caller, with real tokens and real keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import jwt
import pytest

from sessions_adapters.memory import InMemoryEnvironmentStore, InMemoryTokenLedger
from sessions_core.domain.access import Action, Credential
from sessions_core.domain.environment import Environment, EnvironmentType, KeyGrant, RootKey
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId
from sessions_core.errors import StoreUnavailableError
from sessions_core.testing import ManualClock
from sessions_server import tokens
from sessions_server.auth import KEY_SECONDS, Authenticator, Caller
from sessions_server.problems import UnauthenticatedError

ONE, TWO = EnvironmentId("env_1"), EnvironmentId("env_2")
KEY, OTHER_KEY, NEW_KEY = ("tr_dev_" + letter * 24 for letter in "abc")
NARROW_KEY = "tr_dev_sk_" + "d" * 24


@attrs.define
class Seconds:
    """A monotonic clock that stands still."""

    value: float = 0.0

    def __call__(self) -> float:
        return self.value


@attrs.define(eq=False)
class NotedStore(InMemoryEnvironmentStore):
    """Takes a moment for each answer, and notes what it was asked for."""

    asked: list[str] = attrs.field(init=False, factory=list)

    async def find_root_keys(self, environment_id: EnvironmentId) -> Sequence[RootKey]:
        self.asked.append(environment_id)
        await anyio.lowlevel.checkpoint()
        return await InMemoryEnvironmentStore.find_root_keys(self, environment_id)

    async def find_grant(self, key: str) -> KeyGrant | None:
        self.asked.append(key)
        await anyio.lowlevel.checkpoint()
        return await InMemoryEnvironmentStore.find_grant(self, key)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def monotonic() -> Seconds:
    return Seconds()


@pytest.fixture
async def store(clock: ManualClock) -> NotedStore:
    store = NotedStore(clock)
    for environment_id, key in ((ONE, KEY), (TWO, OTHER_KEY)):
        environment = Environment(
            id=environment_id,
            organization_id=OrganizationId("o"),
            project_id=ProjectId("p"),
            type=EnvironmentType.DEVELOPMENT,
        )
        await store.create(environment, key)
    return store


@pytest.fixture
def auth(store: InMemoryEnvironmentStore, clock: ManualClock, monotonic: Seconds) -> Authenticator:
    return Authenticator(environments=store, ledger=InMemoryTokenLedger(clock), clock=clock, monotonic=monotonic)


def claims(clock: ManualClock, **changes: Any) -> dict[str, Any]:
    now = int(clock.now().timestamp())
    content = {
        "sub": ONE,
        "pub": True,
        "scopes": ["read:sessions:x"],
        "iat": now,
        "exp": now + 600,
        "iss": tokens.ISSUER,
        "aud": tokens.AUDIENCE,
    }
    return {name: value for name, value in {**content, **changes}.items() if value is not ...}


def encode(content: dict[str, Any], key: str = KEY, algorithm: str = "HS256", **header: Any) -> str:
    """Sign as anybody may, right or wrong."""
    signer = jwt.PyJWS()
    secret = key.encode().ljust(64, b"\0")  # HMAC pads with zeros itself; longer ones make no warning.
    return signer.encode(json.dumps(content).encode(), secret, algorithm=algorithm, headers=header)


async def refusal(auth: Authenticator, header: str | None) -> str:
    with pytest.raises(UnauthenticatedError) as caught:
        await auth.authenticate(header)
    assert auth.recall(header) is None
    return caught.value.message


@pytest.mark.parametrize(
    "header", [None, "", "Bearer ", "Bearer", "   ", "Bearer nonsense", "Bearer é", "\udcff", "Basic x"]
)
async def test_what_is_no_credential_is_refused(auth: Authenticator, header: str | None) -> None:
    assert await refusal(auth, header) in ("Invalid or Missing API key", "Invalid API key")


@pytest.mark.parametrize("header", [f"Bearer {KEY}", KEY, f"Bearer  {KEY} "])
async def test_a_root_key_may_do_everything_in_its_environment(auth: Authenticator, header: str) -> None:
    caller = await auth.authenticate(header)
    assert (caller.credential, caller.environment.id, caller.scopes) == (Credential.ROOT_KEY, ONE, None)
    assert auth.recall(header) is caller


async def test_a_credential_is_remembered_once_however_it_is_spelled(auth: Authenticator) -> None:
    callers = [await auth.authenticate(f"Bearer {blanks}{KEY}{blanks}") for blanks in ("", " ", "\t", " \t ")]
    assert all(caller is callers[0] for caller in callers)
    assert auth.has_admitted(f"Bearer   {KEY}")


@pytest.mark.parametrize("header", [f"bearer {KEY}", KEY[:-1], KEY + "x", KEY.upper(), f"{KEY}\x00"])
async def test_a_key_that_is_nearly_right_is_wrong(auth: Authenticator, header: str) -> None:
    assert await refusal(auth, header) == "Invalid API key"


async def test_an_additional_key_has_its_scopes_until_it_expires(
    auth: Authenticator, store: InMemoryEnvironmentStore, clock: ManualClock, monotonic: Seconds
) -> None:
    await store.add_key(ONE, NARROW_KEY, ["read:sessions"], expires_at=clock.now() + timedelta(milliseconds=500))
    caller = await auth.authenticate(NARROW_KEY)
    assert (caller.credential, caller.scopes) == (Credential.ADDITIONAL_KEY, ("read:sessions",))
    clock.advance(timedelta(milliseconds=501))
    assert await refusal(auth, NARROW_KEY) == "Invalid API key"


async def test_a_public_token_has_its_scopes(auth: Authenticator, clock: ManualClock) -> None:
    token = encode(claims(clock, scopes=["read:sessions:a:b", 5, None, "unknown:word"]))
    caller = await auth.authenticate(f"Bearer {token}")
    assert (caller.credential, caller.environment.id) == (Credential.PUBLIC_TOKEN, ONE)
    assert caller.scopes == ("read:sessions:a:b", "unknown:word")
    assert auth.recall(f"Bearer {token}") is caller


@pytest.mark.parametrize("scopes", [..., None, "read:sessions", {}, []])
async def test_a_token_without_readable_scopes_may_nothing(
    auth: Authenticator, clock: ManualClock, scopes: Any
) -> None:
    caller = await auth.authenticate(encode(claims(clock, scopes=scopes)))
    assert caller.scopes == ()
    assert not caller.may_with_session(Action.READ, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"exp": ...},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": 0},
        {"exp": -1},
        {"exp": 1e400},
        {"exp": float("nan")},
        {"nbf": 9_999_999_999},
        {"nbf": "x"},
        {"iss": ...},
        {"iss": "https://evil.test"},
        {"iss": [tokens.ISSUER]},
        {"aud": ...},
        {"aud": "https://evil.test"},
        {"aud": {"https://api.trigger.dev": 1}},
        {"sub": TWO},
        {"sub": "env_nope"},
        {"sub": ""},
        {"sub": "a\x00"},
        {"sub": "é"},
        {"sub": ...},
        {"sub": [ONE]},
        {"pub": False},
        {"pub": "true"},
        {"pub": ...},
    ],
    ids=repr,
)
async def test_a_token_with_wrong_claims_is_refused(
    auth: Authenticator, clock: ManualClock, change: dict[str, Any]
) -> None:
    await refusal(auth, encode(claims(clock, **change)))


async def test_several_audiences_and_a_past_beginning_are_fine(auth: Authenticator, clock: ManualClock) -> None:
    token = encode(claims(clock, aud=["other", tokens.AUDIENCE], nbf=1, iat=9_999_999_999))
    assert (await auth.authenticate(token)).environment.id == ONE


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_only_hs256_counts(auth: Authenticator, clock: ManualClock, algorithm: str) -> None:
    assert await refusal(auth, encode(claims(clock), algorithm=algorithm)) == "Public Access Token is invalid"


@pytest.mark.parametrize("alg", ["none", "NONE", "HS256", "hs256", "RS256", None, 5, ["HS256"]])
async def test_a_token_without_signature_is_refused(auth: Authenticator, clock: ManualClock, alg: Any) -> None:
    parts = [json.dumps({"alg": alg}).encode(), json.dumps(claims(clock)).encode()]
    unsigned = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    assert await refusal(auth, f"{unsigned}.") == "Public Access Token is invalid"


async def test_another_environments_key_signs_nothing_here(auth: Authenticator, clock: ManualClock) -> None:
    assert await refusal(auth, encode(claims(clock), key=OTHER_KEY)) == "Public Access Token is invalid"


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
    assert await auth.confirms(credential)
    await store.revoke_key(ONE, added.id)
    await store.rotate_root_key(ONE, NEW_KEY, grace=timedelta())
    monotonic.value += 0.1
    assert auth.recall(credential) is not None
    assert not await auth.confirms(credential)


async def test_a_silent_store_confirms_nothing(
    auth: Authenticator, monotonic: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: NotedStore, __: str) -> None:
        raise StoreUnavailableError

    await auth.authenticate(KEY)
    monkeypatch.setattr(NotedStore, "find_grant", silent)
    monotonic.value += 0.1
    assert auth.recall(KEY) is not None
    assert not await auth.confirms(KEY)


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


async def test_an_unchanged_key_keeps_a_token_verified(
    auth: Authenticator, clock: ManualClock, monotonic: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = encode(claims(clock))
    caller = await auth.authenticate(token)
    monkeypatch.setattr(tokens, "verify", None)
    monotonic.value += 5
    assert await auth.authenticate(token) is caller


async def test_a_minted_token_is_signed_with_the_current_key_and_has_the_contracts_claims(
    auth: Authenticator, store: InMemoryEnvironmentStore, clock: ManualClock
) -> None:
    await store.rotate_root_key(ONE, NEW_KEY, grace=timedelta(hours=1))
    caller = await auth.authenticate(NEW_KEY)
    token = await auth.mint(caller, ("read:sessions:é",), timedelta(hours=1), {"otu": True})
    assert jwt.get_unverified_header(token) == {"alg": "HS256"}
    content = jwt.decode(token, options={"verify_signature": False})
    now = int(clock.now().timestamp())
    assert content == {
        "sub": ONE,
        "pub": True,
        "scopes": ["read:sessions:é"],
        "otu": True,
        "iat": now,
        "exp": now + 3600,
        "iss": "https://id.trigger.dev",
        "aud": "https://api.trigger.dev",
    }
    verified = tokens.verify(
        token, (await auth.authenticate(NEW_KEY)).environment, [RootKey(value=NEW_KEY)], clock.now()
    )
    assert verified is not None
    assert (await auth.authenticate(token)).scopes == ("read:sessions:é",)


async def test_a_minted_token_never_outlives_the_key_or_token_it_was_asked_for_with(
    auth: Authenticator, store: InMemoryEnvironmentStore, clock: ManualClock
) -> None:
    def ends_in(token: str) -> float:
        exp: float = jwt.decode(token, options={"verify_signature": False})["exp"]
        return exp - clock.now().timestamp()

    day, old_token = timedelta(days=1), encode(claims(clock, exp=int(clock.now().timestamp()) + 5000))
    assert ends_in(await auth.mint(await auth.authenticate(KEY), (), day)) == 86_400
    assert ends_in(await auth.mint(await auth.authenticate(old_token), (), day)) == 5000
    await store.rotate_root_key(ONE, NEW_KEY, grace=timedelta(seconds=600.5))
    fresh = Authenticator(environments=store, ledger=auth.ledger, clock=clock)
    assert ends_in(await fresh.mint(await fresh.authenticate(KEY), (), day)) == 600
    assert ends_in(await fresh.mint(await fresh.authenticate(old_token), (), day)) == 600
    assert ends_in(await fresh.mint(await fresh.authenticate(NEW_KEY), (), day)) == 86_400


async def test_a_one_time_token_is_used_once_however_it_is_spelled(auth: Authenticator, clock: ManualClock) -> None:
    token = encode(claims(clock, otu=True))
    caller = await auth.authenticate(token)
    await auth.use_up(caller)
    head, body, signature = token.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = alphabet[alphabet.index(signature[-1]) ^ 1]  # The last two bits of it mean nothing.
    for spelling in (token, f"Bearer {token}", f"{head}.{body}.{signature[:-1]}{twin}", token + "="):
        try:
            again = await auth.authenticate(spelling)
        except UnauthenticatedError:
            continue
        with pytest.raises(UnauthenticatedError):
            await auth.use_up(again)


async def test_other_tokens_are_not_used_up(auth: Authenticator, clock: ManualClock) -> None:
    caller = await auth.authenticate(encode(claims(clock, otu=False)))
    for _ in range(2):
        await auth.use_up(caller)


async def test_a_yes_is_remembered_and_a_no_is_not(auth: Authenticator, clock: ManualClock) -> None:
    caller: Caller = await auth.authenticate(encode(claims(clock, scopes=["read:sessions:ext"])))
    assert not caller.may_with_session(Action.READ, "session_1")
    assert caller.may_with_session(Action.READ, "session_1", "session_1", "ext")
    assert caller.may_with_session(Action.READ, "session_1")
    assert not caller.may_with_session(Action.WRITE, "session_1", "session_1", "ext")
