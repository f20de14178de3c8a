import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.ids import (
    ID_ALPHABET,
    ExternalId,
    SessionId,
    addressing_key,
    is_friendly_id,
    parse_external_id,
    time_ordered_id,
)
from sessions_core.errors import InvalidError


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a", "a"),
        ("  chat 1\n", "chat 1"),
        ("x" * 256, "x" * 256),
        (" " + "x" * 256 + " ", "x" * 256),
        ("Session_1", "Session_1"),
        ("a/b:c,d?#%20", "a/b:c,d?#%20"),
        ("日本語 👋", "日本語 👋"),
    ],
)
def test_an_external_id_is_trimmed_and_otherwise_kept(text: str, kept: str) -> None:
    assert parse_external_id(text) == kept


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "1 to 256"),
        (" \t\n", "1 to 256"),
        ("x" * 257, "1 to 256"),
        ("session_", "reserved prefix"),
        ("session_abc", "reserved prefix"),
        ("  session_abc", "reserved prefix"),
        ("a\x00b", "U+0000"),
        ("a\ud800b", "surrogate"),
    ],
)
def test_a_wrong_external_id_is_refused_with_its_field(text: str, part: str) -> None:
    with pytest.raises(InvalidError, match=re.escape(part)) as caught:
        parse_external_id(text, field="body.externalId")
    assert caught.value.field == "body.externalId"
    assert "body.externalId" in str(caught.value)


@given(st.text(max_size=300))
def test_what_is_accepted_as_external_id_is_never_taken_for_a_friendly_id(text: str) -> None:
    try:
        kept = parse_external_id(text)
    except InvalidError:
        return
    assert not is_friendly_id(kept)
    assert parse_external_id(kept) == kept
    kept.encode()


def test_channels_are_keyed_on_the_external_id_if_there_is_one() -> None:
    assert addressing_key(SessionId("session_1"), ExternalId("mine")) == "mine"
    assert addressing_key(SessionId("session_1"), None) == "session_1"


@given(st.integers(0, 36**8 - 1), st.integers(0, 36**8 - 1))
def test_ids_sort_by_their_time(one: int, other: int) -> None:
    a, b = time_ordered_id(one, "z" * 16), time_ordered_id(other, "0" * 16)
    assert len(a) == len(b) == 25
    assert set(a) <= set(ID_ALPHABET)
    if one != other:
        assert (a < b) == (one < other)
