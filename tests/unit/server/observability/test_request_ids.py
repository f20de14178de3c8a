"""Which request ids are taken over, and that ours are nobody else's."""

from __future__ import annotations

import pytest

from sessions_server.observability.request_ids import RequestIds


@pytest.mark.parametrize(
    "given", ["a", "req-1", "0af7651916cd43dd8448eb211c80319c", "Root=1-67/abc:9+x@y_z.~", "x" * 128]
)
def test_an_id_that_can_be_written_anywhere_is_taken_over(given: str) -> None:
    assert RequestIds().take(given) == given


@pytest.mark.parametrize(
    "given",
    [None, "", "x" * 129, "a b", 'a"b', "a\\b", "<b>", "a\nb", "a\x00", "é", "\u0661", "a,b", "a;b", "$(x)", "a'b"],
)
def test_every_other_one_is_replaced(given: str | None) -> None:
    ids = RequestIds()
    ours = ids.take(given)
    assert ours != given
    assert ids.take(ours) == ours


def test_no_two_requests_have_the_same_id_whichever_process_answers_them() -> None:
    one, other = RequestIds(), RequestIds()
    assert len({ids.take(None) for ids in (one, other) for _ in range(100)}) == 200
