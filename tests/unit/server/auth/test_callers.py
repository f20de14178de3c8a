"""From the Authorization header to the caller, with real tokens and real keys, and tokens for callers."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest

from harness.credentials import (
    KEY,
    NARROW_KEY,
    NEW_KEY,
    ONE,
    OTHER_KEY,
    TWO,
    Seconds,
    claims,
    encode,
    refusal,
)
from sessions_adapters.memory import InMemoryEnvironmentStore
from sessions_core.domain.access import Action, Credential
from sessions_core.domain.environment import RootKey
from sessions_core.testing import ManualClock
from sessions_server.auth import tokens
from sessions_server.auth.authenticator import Authenticator
from sessions_server.auth.caller import Caller
from sessions_server.problems import UnauthenticatedError


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
