"""How much of what is half there is held at a time."""

from __future__ import annotations

import pytest

from sessions_server.data_plane.failures import S2Error
from sessions_server.data_plane.holding import FREE, Holding


def test_what_is_held_for_all_together_has_a_limit() -> None:
    holding = Holding(1000)
    with holding.share() as one, holding.share() as other:
        one.hold(FREE + 600)
        with pytest.raises(S2Error) as refusal:
            other.hold(FREE + 401)
        other.hold(FREE + 400)
        one.hold(FREE + 500)
        other.hold(FREE + 500)
    assert (refusal.value.status, refusal.value.body["code"]) == (429, "rate_limited")


def test_what_is_small_is_never_refused() -> None:
    holding = Holding(0)
    with holding.share() as one, holding.share() as other:
        one.hold(FREE)
        other.hold(FREE)


def test_what_was_held_for_a_request_that_is_over_is_there_for_others() -> None:
    holding = Holding(1000)
    for _ in range(3):
        with holding.share() as share:
            share.hold(FREE + 1000)
            with pytest.raises(S2Error):
                share.hold(FREE + 1001)
