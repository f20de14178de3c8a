"""Bytes that are held are counted for everybody whose they are, and for nobody when their request is over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from sessions_core.domain.ids import EnvironmentId
from sessions_server.limits.settings import LimitSettings
from sessions_server.limits.unfinished_bytes import Share, UnfinishedBytes
from sessions_server.observability.metrics import Metrics
from sessions_server.problems import TooMuchUnfinishedError

ONE, OTHER = EnvironmentId("env_one"), EnvironmentId("env_two")
OFF: dict[str, Any] = {"unfinished_bytes": 0, "unfinished_bytes_per_environment": 0, "unfinished_bytes_per_token": 0}
Whose = Callable[[UnfinishedBytes], Share]


def of(environment_id: EnvironmentId, counted_as: str | None = None) -> Whose:
    return lambda unfinished: unfinished.share_of(environment_id, counted_as)


def make_unfinished(**limits: Any) -> UnfinishedBytes:
    return UnfinishedBytes(LimitSettings(**{**OFF, **limits}), Metrics())


@pytest.mark.parametrize(
    ("limit", "kind", "first", "same", "others"),
    [
        ("unfinished_bytes", "process", of(ONE, "a"), of(OTHER), []),
        ("unfinished_bytes", "process", of(ONE), UnfinishedBytes.share_of_page, []),
        (
            "unfinished_bytes_per_environment",
            "environment",
            of(ONE, "a"),
            of(ONE),
            [of(OTHER, "a"), UnfinishedBytes.share_of_page],
        ),
        (
            "unfinished_bytes_per_environment",
            "page",
            UnfinishedBytes.share_of_page,
            UnfinishedBytes.share_of_page,
            [of(ONE)],
        ),
        ("unfinished_bytes_per_token", "token", of(ONE, "a"), of(ONE, "a"), [of(ONE, "b"), of(ONE), of(OTHER, "a")]),
    ],
)
def test_each_limit_is_somebodys_and_nobody_elses(
    limit: str, kind: str, first: Whose, same: Whose, others: list[Whose]
) -> None:
    unfinished = make_unfinished(**{limit: 1000})
    with first(unfinished) as one, same(unfinished) as two:
        one.hold(600)
        with pytest.raises(TooMuchUnfinishedError) as refused:
            two.hold(401)
        assert (refused.value.kind, refused.value.limit) == (kind, 1000)
        two.hold(400)
        for other in others:
            with other(unfinished) as share:
                share.hold(1000)
    assert len(unfinished) == 0


def test_what_was_held_for_a_request_that_is_over_is_there_for_others() -> None:
    unfinished = make_unfinished(unfinished_bytes=1000, unfinished_bytes_per_token=1000)
    for _ in range(2):
        with suppress(TooMuchUnfinishedError), unfinished.share_of(ONE, "a") as share:
            share.hold(1000)
            share.hold(1001)
    assert len(unfinished) == 0


def test_less_may_be_held_than_before() -> None:
    unfinished = make_unfinished(unfinished_bytes=1000)
    with unfinished.share_of(ONE, None) as one, unfinished.share_of(ONE, None) as two:
        one.hold(1000)
        one.hold(300)
        two.hold(700)
        assert unfinished.held == 1000


def test_one_that_is_refused_holds_what_it_held_before_and_counts_no_more_for_anybody() -> None:
    unfinished = make_unfinished(unfinished_bytes=1000, unfinished_bytes_per_token=100)
    with unfinished.share_of(ONE, "a") as share:
        share.hold(100)
        for _ in range(20):
            with pytest.raises(TooMuchUnfinishedError):
                share.hold(101)
        assert unfinished.held == 100
    assert len(unfinished) == 0


def test_without_limits_nothing_is_kept() -> None:
    unfinished = make_unfinished()
    with unfinished.share_of(ONE, "a") as share:
        share.hold(10**12)
        assert len(unfinished) == 0
