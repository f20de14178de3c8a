"""Public tokens, whatever is in their three parts: verified as they were signed, or refused, and nothing else."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.access import run_scopes, session_scopes
from sessions_core.domain.environment import Environment, EnvironmentType, RootKey
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId
from sessions_core.testing import ManualClock
from sessions_server.auth import tokens

NOW = ManualClock().now()
START = int(NOW.timestamp())
KEY, OTHER_KEY = (RootKey(value="tr_dev_" + letter * 24) for letter in "ab")
ENVIRONMENT = Environment(
    id=EnvironmentId("env_1"),
    organization_id=OrganizationId("o"),
    project_id=ProjectId("p"),
    type=EnvironmentType.DEVELOPMENT,
)

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
around_now = st.integers(START - 10, START + 10)
VARIANTS: dict[str, st.SearchStrategy[Any]] = {
    "sub": any_json,
    "pub": any_json,
    "iss": any_json,
    "aud": st.just([tokens.AUDIENCE]) | any_json,
    "exp": around_now | any_json,
    "nbf": around_now | any_json,
    "scopes": st.lists(st.text() | any_json) | any_json,
    "otu": st.booleans() | any_json,
    "rolling": st.booleans() | any_json,
    "counted_as": st.text(max_size=70) | any_json,
}
GOOD = {"sub": "env_1", "pub": True, "iss": tokens.ISSUER, "aud": tokens.AUDIENCE, "exp": START + 5, "scopes": ["read"]}
claims = (
    st.lists(st.sampled_from(sorted(VARIANTS)), max_size=2, unique=True)
    .flatmap(lambda names: st.fixed_dictionaries({name: VARIANTS[name] for name in names}))
    .map(lambda changes: GOOD | changes)
)
segments = st.one_of(
    st.text(max_size=20),
    any_json.map(lambda value: encode(json.dumps(value))),
    st.binary(max_size=30).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
)


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def verify(token: str) -> tokens.PublicToken | None:
    return tokens.verify(token, ENVIRONMENT, [OTHER_KEY, KEY], NOW)


def signed(text: str, key: RootKey = KEY) -> str:
    """Sign *text* as a holder of a root key may, whether it is JSON or not."""
    return tokens._SIGNER.encode(text.encode("utf-8", "surrogatepass"), key.value, algorithm="HS256")


@given(claims)
def test_any_claims_that_were_signed_are_read_or_refused(content: dict[str, Any]) -> None:
    found = verify(signed(json.dumps(content)))
    if found is None:
        assert content.keys() - GOOD.keys() or any(content[name] != GOOD[name] for name in GOOD)
    else:
        assert (content["sub"], content["pub"], content["iss"]) == ("env_1", True, tokens.ISSUER)
        assert content["aud"] == tokens.AUDIENCE or tokens.AUDIENCE in content["aud"]
        assert START < found.expires_at == content["exp"]
        assert "nbf" not in content or content["nbf"] <= START
        assert re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", found.counted_as)
        assert all(scope in content["scopes"] for scope in found.scopes)
        assert (found.one_time is not None) == (content.get("otu") is True)
        assert found.is_rolling == (content.get("rolling") is True)


@given(st.text(max_size=60) | any_json.map(json.dumps) | st.sampled_from(["[" * 5000, '{"exp":' + "1" * 5000 + "}"]))
def test_whatever_was_signed_is_a_token_or_none(content: str) -> None:
    assert verify(signed(content)) is None


@given(st.lists(segments, max_size=5), st.sampled_from([".", "..", " "]))
def test_any_text_is_a_token_or_none(parts: list[str], joint: str) -> None:
    token = joint.join(parts)
    assert verify(token) is None
    tokens.peek_environment(token)


@given(segments, segments, segments)
def test_three_segments_are_a_token_or_none(head: str, content: str, signature: str) -> None:
    token = f"{head}.{content}.{signature}"
    assert verify(token) is None
    peeked = tokens.peek_claims(token)
    assert peeked is None or isinstance(peeked, dict)


@given(st.lists(st.text(), max_size=5), st.integers(1, 10_000), st.booleans())
def test_what_is_minted_is_verified_until_it_ends(scopes: list[str], seconds: int, one_time: bool) -> None:
    token = tokens.mint(
        ENVIRONMENT.id, scopes, KEY, start=START, end=START + seconds, extra={"otu": True} if one_time else None
    )
    found = verify(token)
    assert found is not None
    assert (found.scopes, found.expires_at, found.key) == (tuple(scopes), START + seconds, KEY)
    assert (found.one_time is not None) == one_time
    assert tokens.peek_environment(token) == ENVIRONMENT.id
    assert tokens.verify(token, ENVIRONMENT, [KEY], NOW + timedelta(seconds=seconds)) is None
    assert tokens.verify(token, ENVIRONMENT, [OTHER_KEY], NOW) is None
    assert tokens.verify(token, attrs.evolve(ENVIRONMENT, id=EnvironmentId("env_2")), [KEY], NOW) is None


@pytest.mark.parametrize("start", [0, 0.0, -1, START, START - 0.5])
def test_a_token_whose_beginning_has_passed_works(start: float) -> None:
    assert verify(signed(json.dumps(GOOD | {"nbf": start})))


@pytest.mark.parametrize("start", [None, "0", False, True, [0], {}, math.nan, -math.inf, START + 1, 1e15])
def test_a_token_that_has_not_begun_or_says_no_number_is_none(start: Any) -> None:
    assert verify(signed(json.dumps(GOOD | {"nbf": start}))) is None


def counted_as(**more: Any) -> str:
    found = verify(signed(json.dumps(GOOD | more)))
    assert found is not None
    return found.counted_as


def test_a_token_is_counted_for_itself_unless_it_says_otherwise() -> None:
    names = [counted_as(), counted_as(exp=START + 6), counted_as(counted_as="a"), counted_as(counted_as="b")]
    assert len(set(names)) == 4
    assert counted_as(counted_as="a", exp=START + 6, scopes=[]) == names[2]


@pytest.mark.parametrize("name", ["", " ", "ä", "\ud800", "a" * 65, "a\n", 1, None, ["a"]])
def test_what_is_no_name_to_count_by_makes_no_difference(name: Any) -> None:
    assert counted_as(counted_as=name, exp=START + 6) != counted_as(counted_as=name)


def test_tokens_of_one_session_or_run_are_counted_together_and_apart_from_others() -> None:
    def name_of(scopes: Sequence[str], start: int) -> str:
        token = tokens.mint(ENVIRONMENT.id, scopes, KEY, start=start, end=START + 60, extra=tokens.counted_by(scopes))
        found = verify(token)
        assert found is not None
        return found.counted_as

    kinds = [session_scopes("a"), session_scopes("b"), session_scopes("ä"), run_scopes("run_1", "a")]
    names = [{name_of(scopes, START - age) for age in range(3)} for scopes in kinds]
    assert [len(each) for each in names] == [1] * 4
    assert len(set().union(*names)) == 4


@given(st.data())
def test_a_token_of_which_anything_was_changed_is_none(data: st.DataObject) -> None:
    token = tokens.mint(ENVIRONMENT.id, ["read:sessions"], KEY, start=START, end=START + 60)
    at = data.draw(st.integers(0, token.rindex(".")))
    changed = token[:at] + data.draw(st.characters().filter(lambda letter: letter != token[at])) + token[at + 1 :]
    assert verify(changed) is None


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_a_token_that_is_cut_is_none(cut: int) -> None:
    token = tokens.mint(ENVIRONMENT.id, ["read:sessions"], KEY, start=START, end=START + 60)
    assert verify(token[:cut]) is None
    assert verify(token[cut + 1 :]) is None
