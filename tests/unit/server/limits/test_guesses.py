"""Credentials that do not work: counted by who sent them, and nobody else is locked out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest
from multidict import CIMultiDict

from sessions_core.domain.rate import Rate
from sessions_core.errors import StoreUnavailableError, UnavailableError
from sessions_core.testing import ManualClock
from sessions_server.limits import guesses as guesses_module
from sessions_server.limits.guesses import Guesses, network_of
from sessions_server.observability.metrics import Metrics
from sessions_server.problems import RateLimitedError, UnauthenticatedError

HEADER = "x-forwarded-for"


def make_guesses(clock: ManualClock | None = None, header: str | None = None) -> Guesses:
    return Guesses(rate=Rate(1, 3), header=header, clock=clock or ManualClock(), metrics=Metrics())


async def guess(guesses: Guesses, peer: str | None = "192.0.2.1", headers: Mapping[str, str] = {}) -> bool:
    """Show a credential that does not work; return whether it was looked at."""
    try:
        async with guesses.counted(peer, headers):
            raise UnauthenticatedError
    except UnauthenticatedError:
        return True
    except RateLimitedError:
        return False


async def test_an_address_is_looked_at_no_more_when_it_has_been_wrong_too_often() -> None:
    clock = ManualClock()
    guesses = make_guesses(clock)
    assert [await guess(guesses) for _ in range(5)] == [True, True, True, False, False]
    clock.advance(timedelta(seconds=1))
    assert [await guess(guesses) for _ in range(2)] == [True, False]
    clock.advance(timedelta(hours=1))
    assert [await guess(guesses) for _ in range(5)] == [True, True, True, False, False]


async def test_what_works_does_not_count() -> None:
    guesses = make_guesses()
    for _ in range(10):
        async with guesses.counted("192.0.2.1", {}):
            pass
    assert await guess(guesses)


async def look(guesses: Guesses, answer: asyncio.Event, error: Exception | None, looked: list[int]) -> str:
    """Show a credential that is looked at until *answer* comes; return how it ended."""
    try:
        async with guesses.counted("192.0.2.1", {}):
            looked.append(1)
            await answer.wait()
            if error is not None:
                raise error
    except (UnauthenticatedError, UnavailableError, RateLimitedError) as refusal:
        return type(refusal).__name__
    return "works"


async def at_once(guesses: Guesses, count: int, error: Exception | None) -> tuple[list[str], int]:
    """Show *count* at once; return how they ended, and how many were being looked at before the first had an answer."""
    answer, looked = asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(look(guesses, answer, error, looked)) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    first = len(looked)
    answer.set()
    return await asyncio.gather(*tasks), first


async def test_of_many_wrong_ones_at_once_no_more_are_looked_at_than_one_after_the_other() -> None:
    endings, first = await at_once(make_guesses(), 50, UnauthenticatedError())
    assert first == 3
    assert endings == ["UnauthenticatedError"] * 3 + ["RateLimitedError"] * 47


async def test_many_that_work_wait_for_each_other_and_none_is_refused() -> None:
    guesses = make_guesses()
    assert await at_once(guesses, 50, None) == (["works"] * 50, 3)
    assert [await guess(guesses) for _ in range(4)] == [True, True, True, False]


async def test_nobody_waits_for_long_for_the_looks_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses_module, "PATIENCE_SECONDS", 0.05)
    guesses, never, looked = make_guesses(), asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(look(guesses, never, None, looked)) for _ in range(5)]
    async with asyncio.timeout(30):
        done, waiting = await asyncio.wait(tasks[3:])
    assert [task.result() for task in done] == ["RateLimitedError"] * 2
    assert not waiting
    never.set()
    assert await asyncio.gather(*tasks[:3]) == ["works"] * 3


async def test_a_look_that_takes_long_gives_nobody_a_second_guess() -> None:
    clock = ManualClock()
    guesses, answer, looked = make_guesses(clock), asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(look(guesses, answer, None, looked)) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    clock.advance(timedelta(seconds=3))
    answer.set()
    await asyncio.gather(*tasks)
    assert [await guess(guesses) for _ in range(4)] == [True, True, True, False]


async def test_what_a_silent_store_cannot_tell_is_no_guess() -> None:
    guesses = make_guesses()
    endings, _ = await at_once(guesses, 50, StoreUnavailableError())
    assert endings == ["StoreUnavailableError"] * 50
    assert [await guess(guesses) for _ in range(4)] == [True, True, True, False]


async def test_who_leaves_while_being_looked_at_has_guessed_and_who_leaves_while_waiting_has_not() -> None:
    guesses, never, looked = make_guesses(), asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(look(guesses, never, None, looked)) for _ in range(5)]
    for _ in range(5):
        await asyncio.sleep(0)
    for task in (tasks[4], tasks[3], tasks[0]):
        task.cancel()
    await asyncio.wait((tasks[4], tasks[3], tasks[0]))
    never.set()
    assert await asyncio.gather(*tasks[1:3]) == ["works"] * 2
    assert [await guess(guesses) for _ in range(3)] == [True, True, False]


async def test_another_address_has_guesses_of_its_own() -> None:
    guesses = make_guesses()
    assert [await guess(guesses) for _ in range(4)] == [True, True, True, False]
    assert await guess(guesses, "192.0.2.2")


@pytest.mark.parametrize(
    ("address", "hand"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("192.0.2.1:5678", "192.0.2.1"),
        ("[2001:db8:1:2::1]:5678", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::1]", "2001:db8:1:2::/64"),
        ("", ""),
        ("unknown:1", "unknown:1"),
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
async def test_behind_a_proxy_the_client_is_who_the_proxy_says(headers: Mapping[str, str], said: str) -> None:
    guesses = make_guesses(header=HEADER)
    assert [await guess(guesses, headers=headers) for _ in range(4)] == [True, True, True, False]
    assert not await guess(guesses, headers={HEADER: said})
    assert await guess(guesses, headers={HEADER: "198.51.100.8"})


async def test_without_a_proxy_nobody_chooses_an_address() -> None:
    guesses = make_guesses()
    shown = [await guess(guesses, headers={HEADER: f"198.51.100.{number}"}) for number in range(4)]
    assert shown == [True, True, True, False]
