"""Many have the same question at once: one asks, and all hear what came of it."""

from __future__ import annotations

import asyncio

import pytest

from sessions_core.errors import StoreUnavailableError, UnavailableError
from sessions_server.auth.questions import Questions
from sessions_server.problems import UnauthenticatedError

WAITERS = 20


class SilentStore:
    """Says nothing until told to give up, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.gives_up = asyncio.Event()

    async def answer(self) -> str:
        self.asked += 1
        await self.gives_up.wait()
        raise StoreUnavailableError("directory")


async def ask(questions: Questions, store: SilentStore, subject: str = "key") -> str:
    return await questions.about(subject).ask(store.answer)


async def until_all_wait() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_waits_for_a_silent_store_hears_of_its_silence_with_the_one_who_asked() -> None:
    questions, store = Questions(), SilentStore()
    tasks = [asyncio.create_task(ask(questions, store)) for _ in range(WAITERS)]
    await until_all_wait()
    store.gives_up.set()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert store.asked == 1
    assert {type(failure) for failure in failures} == {StoreUnavailableError}
    assert {str(failure) for failure in failures} == {"The directory is unavailable; try again"}


async def test_who_comes_after_a_silence_asks_anew() -> None:
    questions, store = Questions(), SilentStore()
    store.gives_up.set()
    kept = questions.about("key")  # somebody still holds it, so what it knows is still there
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await ask(questions, store)
    assert store.asked == 3
    assert questions.about("key") is kept


async def test_who_waits_for_another_question_is_not_told() -> None:
    questions, store = Questions(), SilentStore()
    tasks = [asyncio.create_task(ask(questions, store, f"key {number}")) for number in range(3)]
    await until_all_wait()
    assert store.asked == 3
    store.gives_up.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_asking_goes_on_when_whoever_began_it_leaves() -> None:
    questions, store = Questions(), SilentStore()
    first, second = (asyncio.create_task(ask(questions, store)) for _ in range(2))
    await until_all_wait()
    first.cancel()
    await until_all_wait()
    assert first.cancelled()
    store.gives_up.set()
    with pytest.raises(UnavailableError):
        await second
    assert store.asked == 1


async def test_who_leaves_while_waiting_asks_nobody() -> None:
    questions, store = Questions(), SilentStore()
    tasks = [asyncio.create_task(ask(questions, store)) for _ in range(WAITERS)]
    await until_all_wait()
    for task in tasks:
        task.cancel()
    await until_all_wait()
    store.gives_up.set()
    await until_all_wait()
    assert store.asked == 1
    with pytest.raises(UnavailableError):
        await ask(questions, store)


async def test_a_refusal_holds_for_all_who_waited_for_it_and_for_nobody_else() -> None:
    questions, asked = Questions(), list[int]()

    async def refuse() -> None:
        asked.append(1)
        await asyncio.sleep(0)
        raise UnauthenticatedError("Invalid API key")

    for _ in range(2):
        answers = await asyncio.gather(
            *(questions.about("key").ask(refuse) for _ in range(WAITERS)), return_exceptions=True
        )
        assert {(type(answer), str(answer)) for answer in answers} == {(UnauthenticatedError, "Invalid API key")}
    assert len(asked) == 2


async def test_any_other_error_is_only_that_of_whoever_met_it() -> None:
    questions = Questions()

    async def fail(error: Exception | None) -> str:
        async def look() -> str:
            await asyncio.sleep(0)
            if error is not None:
                raise error
            return "answer"

        return await questions.about("key").ask(look)

    answers = await asyncio.gather(fail(ValueError("broken")), fail(None), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["broken", "answer"]


async def test_a_question_nobody_asks_any_more_is_forgotten() -> None:
    questions, store = Questions(), SilentStore()
    store.gives_up.set()
    with pytest.raises(UnavailableError):
        await ask(questions, store)
    await until_all_wait()
    assert len(questions) == 0
