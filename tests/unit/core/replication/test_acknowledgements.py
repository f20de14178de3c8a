"""Positions are acknowledged in their order, however rows land."""

from __future__ import annotations

import gc
import random

from hypothesis import given
from hypothesis import strategies as st

from sessions_core.services.replication.acknowledgements import Acknowledgements, Place


def add(acknowledgements: Acknowledgements, position: int, rows: int) -> Place:
    place = acknowledgements.open(position)
    place.rows += rows
    acknowledgements.close(place)
    return place


def length(acknowledgements: Acknowledgements) -> int:
    place, places = acknowledgements._last, 0
    while place is not None:
        place, places = place.before, places + 1
    return places


def test_nothing_is_safe_before_anything_is() -> None:
    assert Acknowledgements().safe == 0


def test_the_oldest_row_holds_back_all_that_follow() -> None:
    acks = Acknowledgements()
    first, second = add(acks, 10, 2), add(acks, 20, 1)
    acks.settle(second)
    acks.settle(first)
    assert acks.safe == 0
    acks.settle(first)
    assert acks.safe == 20


def test_a_batch_without_rows_of_its_own_is_safe_once_those_before_are() -> None:
    acks = Acknowledgements()
    first = add(acks, 10, 1)
    add(acks, 20, 0)
    assert acks.safe == 0
    acks.settle(first)
    assert acks.safe == 20
    add(acks, 30, 0)
    assert acks.safe == 30


def test_parts_of_a_transaction_wait_for_each_other() -> None:
    acks = Acknowledgements()
    first, part = add(acks, 10, 1), add(acks, 10, 1)
    acks.settle(first)
    assert acks.safe == 0
    acks.settle(part)
    assert acks.safe == 10


def test_what_follows_a_row_that_never_lands_takes_no_room() -> None:
    acks = Acknowledgements()
    add(acks, 1, 1)
    for position in range(2, 1000):
        acks.settle(add(acks, position, 1))
    gc.collect()
    assert length(acks) == 1
    assert acks.safe == 0


batches = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30)


@given(batches, st.randoms(use_true_random=False))
def test_a_position_is_safe_when_everything_up_to_it_has_landed_and_not_before(
    told: list[tuple[int, int]], rng: random.Random
) -> None:
    acks, position = Acknowledgements(), 1
    out: list[tuple[int, Place]] = []
    for step, rows in told:
        position += step
        is_late = position <= acks.safe  # a part whose position was safe before it came
        place = add(acks, position, rows)
        out += [(0 if is_late else position, place)] * rows
        while out and rng.random() < 0.5:
            acks.settle(out.pop(rng.randrange(len(out)))[1])
            assert all(acks.safe < waiting for waiting, _ in out if waiting)
            assert length(acks) <= len(out)
    rng.shuffle(out)
    while out:
        acks.settle(out.pop()[1])
        assert all(acks.safe < waiting for waiting, _ in out if waiting)
    assert acks.safe == (position if told else 0)
    assert length(acks) == 0


@given(batches, st.randoms(use_true_random=False))
def test_a_position_is_safe_at_once_when_everything_up_to_it_has_landed(
    told: list[tuple[int, int]], rng: random.Random
) -> None:
    acks, position, seen = Acknowledgements(), 0, [0]
    out: list[tuple[int, Place]] = []
    for step, rows in told:
        position += step + 1
        seen.append(position)
        out += [(position, add(acks, position, rows))] * rows
        while out and rng.random() < 0.5:
            acks.settle(out.pop(rng.randrange(len(out)))[1])
            oldest = min((waiting for waiting, _ in out), default=position + 1)
            assert acks.safe == max(one for one in seen if one < oldest)
