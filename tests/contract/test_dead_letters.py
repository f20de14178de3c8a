"""What every keeper of dead letters guarantees."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import attrs

from contract.makers import at_once
from sessions_core.ports.change_feed import ChangeKind
from sessions_core.ports.dead_letters import DeadLetter, DeadLetters

COLUMNS: Mapping[str, str | None] = {"id": "session_1", "metadata": '{"a": "ü🎉", "b": [1, null]}', "closed_at": None}
LETTER = DeadLetter(
    kind=ChangeKind.UPDATE, session="session_1", version=2**64 - 1, reason="does not fit: ü\n'\"\\", columns=COLUMNS
)
LARGE = 1_000


def other(number: int) -> DeadLetter:
    return attrs.evolve(LETTER, version=number)


async def test_there_are_none_at_first(dead_letters: DeadLetters) -> None:
    assert await dead_letters.count() == 0
    assert await dead_letters.list_latest(10) == []


async def test_letters_are_kept_as_they_are(dead_letters: DeadLetters) -> None:
    nameless = DeadLetter(kind=ChangeKind.DELETE, session=None, version=0, reason="", columns={})
    assert await dead_letters.store([LETTER, nameless]) == 2
    assert await dead_letters.list_latest(10) == [nameless, LETTER]


async def test_the_latest_letters_come_first(dead_letters: DeadLetters) -> None:
    for number in (5, 3, 4):
        await dead_letters.store([other(number)])
    assert [letter.version for letter in await dead_letters.list_latest(2)] == [4, 3]
    assert await dead_letters.count() == 3


async def test_a_letter_that_comes_again_is_not_kept_twice(dead_letters: DeadLetters) -> None:
    assert await dead_letters.store([LETTER, LETTER]) == 1
    turned = {name: COLUMNS[name] for name in reversed([*COLUMNS])}
    again = attrs.evolve(LETTER, reason="said in other words", columns=turned)
    assert await dead_letters.store([again, other(1)]) == 1
    assert await dead_letters.count() == 2
    assert LETTER in await dead_letters.list_latest(10)


async def test_letters_about_different_changes_are_all_kept(dead_letters: DeadLetters) -> None:
    letters = [
        LETTER,
        attrs.evolve(LETTER, kind=ChangeKind.DELETE),
        attrs.evolve(LETTER, session="session_2"),
        attrs.evolve(LETTER, session=None),
        attrs.evolve(LETTER, version=1),
        attrs.evolve(LETTER, columns={**COLUMNS, "closed_at": ""}),
        attrs.evolve(LETTER, columns={"id": "session_1"}),
    ]
    assert await dead_letters.store(letters) == len(letters)
    assert await dead_letters.store(letters) == 0
    assert await dead_letters.count() == len(letters)


async def test_many_may_come_at_once_and_from_several_sides(dead_letters: DeadLetters) -> None:
    letters = [other(number) for number in range(LARGE)]
    stored = await at_once([partial(dead_letters.store, letters) for _ in range(3)])
    assert sum(stored) == LARGE
    assert await dead_letters.count() == LARGE


async def test_nothing_is_a_number_of_letters_as_well(dead_letters: DeadLetters) -> None:
    assert await dead_letters.store([]) == 0
