"""Paths and their parameters."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.errors import InvalidError
from sessions_server.router import Router, decode_segment


@attrs.frozen
class Line:
    method: str
    path: str


LINES = [
    Line("GET", "/a"),
    Line("POST", "/a"),
    Line("GET", "/a/{x}"),
    Line("GET", "/a/{x}/b/{y}"),
    Line("PUT", "/a/z/b/c"),
]
ROUTER = Router(LINES)


@pytest.mark.parametrize(
    ("path", "methods", "values"),
    [
        ("/a", {"GET", "POST"}, []),
        ("/a/1", {"GET"}, ["1"]),
        ("/a/%2F", {"GET"}, ["%2F"]),
        ("/a/1/b/2", {"GET"}, ["1", "2"]),
        ("/a/z/b/c", {"PUT"}, []),
    ],
)
def test_a_path_is_found_with_its_raw_values(path: str, methods: set[str], values: list[str]) -> None:
    found = ROUTER.find(path)
    assert found is not None
    assert (set(found[0].methods), found[1]) == (methods, values)
    assert len(found[0].names) == len(values)


@pytest.mark.parametrize("path", ["", "/", "a", "/b", "/a/", "/a//b/2", "/a/1/b", "/a/1/b/2/3", "/A", "//a", "/%61"])
def test_other_paths_are_not(path: str) -> None:
    assert ROUTER.find(path) is None


def test_get_stands_for_head() -> None:
    found = ROUTER.find("/a")
    assert found is not None
    assert found[0].allowed == ("GET", "HEAD", "OPTIONS", "POST")


@given(st.text(min_size=1, max_size=256).filter(lambda text: "\x00" not in text))
def test_what_a_client_encodes_comes_back_exactly(text: str) -> None:
    assert decode_segment(quote(text, safe=""), "x") == text


@given(st.text(alphabet="%0123456789abcdefABCDEFxyz/", max_size=30))
def test_anything_else_is_refused_and_nothing_worse(text: str) -> None:
    with suppress(InvalidError):
        assert "\x00" not in decode_segment(text, "session")


def test_a_segment_is_decoded_once() -> None:
    assert decode_segment("%252F", "x") == "%2F"


@pytest.mark.parametrize("segment", ["%", "%4", "%zz", "%ff", "%c3%28", "%ed%a0%80", "%00", "a" * 257, "\udcff"])
def test_a_malformed_segment_is_refused(segment: str) -> None:
    with pytest.raises(InvalidError):
        decode_segment(segment, "x")
