import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.ids import SessionId
from sessions_core.domain.pagination import (
    Cursor,
    Direction,
    IndexEntry,
    PageRequest,
    make_page,
)
from sessions_core.errors import InvalidCursorError, InvalidError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = 253402300799999
storable = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


def at(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)


@given(st.integers(0, LAST), st.text(storable, max_size=40), st.integers(0, 999))
def test_a_cursor_survives_its_text_form(milliseconds: int, name: str, micros: int) -> None:
    cursor = Cursor(at(milliseconds) + timedelta(microseconds=micros), SessionId(name))
    text = cursor.encode()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert Cursor.decode(text, field="page[after]") == cursor
    assert cursor.created_at == at(milliseconds)


def opaque(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "session_abc",
        "!!!!",
        "é",
        "AAAA",
        opaque(None),
        opaque(1),
        opaque([1, "x"]),
        opaque("cs"),
        opaque({}),
        opaque({"c": 1}),
        opaque({"s": "x"}),
        opaque({"c": "1", "s": "x"}),
        opaque({"c": 1.0, "s": "x"}),
        opaque({"c": True, "s": "x"}),
        opaque({"c": -1, "s": "x"}),
        opaque({"c": LAST + 1, "s": "x"}),
        opaque({"c": 10**300, "s": "x"}),
        opaque({"c": 1, "s": None}),
        opaque({"c": 1, "s": "a\0"}),
        opaque({"c": 1, "s": "\ud800"}),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        base64.urlsafe_b64encode(b'{"c":' + b"1" * 5000 + b',"s":"x"}').decode(),
        base64.urlsafe_b64encode(b"\xff\xff").decode(),
    ],
)
def test_junk_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidCursorError) as caught:
        Cursor.decode(text, field="page[after]")
    assert caught.value.field == "page[after]"


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        cursor = Cursor.decode(text, field="page[before]")
    except InvalidCursorError:
        return
    assert Cursor.decode(cursor.encode(), field="x") == cursor


@pytest.mark.parametrize("size", [0, -1, 101])
def test_a_page_has_one_to_a_hundred_rows(size: int) -> None:
    with pytest.raises(InvalidError, match=r"page\[size\]"):
        PageRequest(size=size)


# --- Walking, against a naive oracle ---------------------------------------------------------------

rows = st.lists(st.tuples(st.integers(0, 4), st.text("abc", min_size=1, max_size=3)), max_size=25, unique=True).map(
    lambda pairs: sorted(
        (IndexEntry(at(time), SessionId(f"{time}{name}")) for time, name in pairs),
        key=lambda entry: (entry.created_at, entry.id),
        reverse=True,
    )
)
"""Newest first; many share one time."""


def select(entries: list[IndexEntry], request: PageRequest) -> list[IndexEntry]:
    """What an index returns, written down naively."""
    place = None if request.cursor is None else (request.cursor.created_at, request.cursor.id)
    if request.direction is Direction.AFTER:
        found = [e for e in entries if place is None or (e.created_at, e.id) < place]
    else:
        found = [e for e in reversed(entries) if place is None or (e.created_at, e.id) > place]
    return found[: request.size + 1]


@given(rows, st.integers(1, 7))
def test_walking_forward_and_back_meets_every_row_exactly_once(entries: list[IndexEntry], size: int) -> None:
    request = PageRequest(size=size)
    pages = []
    while True:
        page = make_page(select(entries, request), request)
        pages.append(page)
        if page.next is None:
            break
        request = PageRequest(size=size, cursor=Cursor.decode(page.next.encode(), field="x"))
    assert [e for page in pages for e in page.items] == entries
    assert pages[0].previous is None

    back, page = [pages[-1]], pages[-1]
    while page.previous is not None:
        request = PageRequest(size=size, cursor=page.previous, direction=Direction.BEFORE)
        page = make_page(select(entries, request), request)
        back.append(page)
    assert [e for page in reversed(back) for e in page.items] == entries


@given(rows, st.integers(1, 7), st.sampled_from(Direction), st.data())
def test_a_page_is_the_slice_beside_its_cursor(
    entries: list[IndexEntry], size: int, direction: Direction, data: st.DataObject
) -> None:
    where = data.draw(st.integers(0, len(entries)), label="rows before the cursor")
    cursor = entries[where].cursor if where < len(entries) else None
    request = PageRequest(size=size, cursor=cursor, direction=direction)
    page = make_page(select(entries, request), request)
    if direction is Direction.AFTER:
        rest = entries if cursor is None else entries[where + 1 :]
        kept = rest[:size]
    else:
        rest = entries if cursor is None else entries[:where]
        kept = rest[-size:]
    assert list(page.items) == kept
    if not kept:
        assert page.next is None
        assert page.previous is None
        return
    more = len(rest) > size
    older, newer = (more, cursor is not None) if direction is Direction.AFTER else (cursor is not None, more)
    assert page.next == (kept[-1].cursor if older else None)
    assert page.previous == (kept[0].cursor if newer else None)
