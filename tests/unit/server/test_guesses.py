"""Credentials that do not work: counted by who sent them, and nobody else is locked out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
from multidict import CIMultiDict

from sessions_core.domain.rate import Rate
from sessions_core.testing import ManualClock
from sessions_server.guesses import Guesses, network_of
from sessions_server.metrics import Metrics
from sessions_server.problems import RateLimitedError, UnauthenticatedError

HEADER = "x-forwarded-for"


def make_guesses(clock: ManualClock | None = None, header: str | None = None) -> Guesses:
    return Guesses(rate=Rate(1, 3), header=header, clock=clock or ManualClock(), metrics=Metrics())


def guess(guesses: Guesses, peer: str | None = "192.0.2.1", headers: Mapping[str, str] = {}) -> bool:
    """Show a credential that does not work; return whether it was looked at."""
    try:
        with guesses.counted(peer, headers):
            raise UnauthenticatedError
    except UnauthenticatedError:
        return True
    except RateLimitedError:
        return False


def test_an_address_is_looked_at_no_more_when_it_has_been_wrong_too_often() -> None:
    clock = ManualClock()
    guesses = make_guesses(clock)
    assert [guess(guesses) for _ in range(5)] == [True, True, True, False, False]
    clock.advance(timedelta(seconds=1))
    assert [guess(guesses) for _ in range(2)] == [True, False]
    clock.advance(timedelta(hours=1))
    assert [guess(guesses) for _ in range(5)] == [True, True, True, False, False]


def test_what_works_does_not_count() -> None:
    guesses = make_guesses()
    for _ in range(10):
        with guesses.counted("192.0.2.1", {}):
            pass
    assert guess(guesses)


def test_another_address_has_guesses_of_its_own() -> None:
    guesses = make_guesses()
    assert [guess(guesses) for _ in range(4)] == [True, True, True, False]
    assert guess(guesses, "192.0.2.2")


@pytest.mark.parametrize(
    ("address", "hand"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("", ""),
        ("unknown", "unknown"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_address_is_what_is_in_one_hand(address: str, hand: str) -> None:
    assert network_of(address) == hand


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-forwarded-for": "198.51.100.7"}, "198.51.100.7"),
        ({"x-forwarded-for": "made up, 198.51.100.7"}, "198.51.100.7"),
        (CIMultiDict([("X-Forwarded-For", "made up"), ("X-Forwarded-For", "198.51.100.7")]), "198.51.100.7"),
        ({}, "192.0.2.1"),
    ],
)
def test_behind_a_proxy_the_client_is_who_the_proxy_says(headers: Mapping[str, str], said: str) -> None:
    guesses = make_guesses(header=HEADER)
    assert [guess(guesses, headers=headers) for _ in range(4)] == [True, True, True, False]
    assert not guess(guesses, headers={HEADER: said})
    assert guess(guesses, headers={HEADER: "198.51.100.8"})


def test_without_a_proxy_nobody_chooses_an_address() -> None:
    guesses = make_guesses()
    shown = [guess(guesses, headers={HEADER: f"198.51.100.{number}"}) for number in range(4)]
    assert shown == [True, True, True, False]
