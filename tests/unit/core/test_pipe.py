"""Piping: what comes fast goes together, what comes alone goes at once, and nothing comes too fast."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_core import chat
from sessions_core.domain.channel import Io, data_record
from sessions_core.domain.ids import PartId
from sessions_core.errors import ChannelUnavailableError, InvalidError, RecordTooLargeError, StaleRunError
from sessions_core.outbox import PIPE_BYTES, PIPE_ITEMS, Pipe, pieces
from unit.core.chats import HOME, NAME, STOP, data_of, echo_agents, said, spec
from unit.core.promises import until_rest
from unit.core.taps import Tap
from unit.core.world import World, run_virtually


@attrs.define
class Taker:
    """Takes batches, each in one second, unless told otherwise."""

    seconds: float = 1.0
    fails_at: int | None = None
    batches: list[list[Any]] = attrs.field(factory=list)

    async def __call__(self, batch: list[Any]) -> None:
        await anyio.sleep(self.seconds)
        if self.fails_at == len(self.batches):
            raise ChannelUnavailableError
        self.batches.append(batch)


async def carry(values: Any, taker: Taker, size: int = 1) -> None:
    pipe: Pipe[Any] = Pipe(taker, lambda item: size)
    await pipe.carry(values, lambda value: [value])


async def at_once(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def every(seconds: float, count: int) -> AsyncIterator[int]:
    for number in range(count):
        if number:
            await anyio.sleep(seconds)
        yield number


async def test_a_value_alone_goes_out_at_once() -> None:
    taker = Taker(seconds=0)
    times: list[float] = []

    async def note(batch: list[Any]) -> None:
        times.append(anyio.current_time())
        await taker(batch)

    began = anyio.current_time()
    await Pipe[Any](note, lambda item: 1).carry(every(5, 4), lambda value: [value])
    assert taker.batches == [[0], [1], [2], [3]]
    assert times == [began, began + 5, began + 10, began + 15]


async def test_a_source_that_never_waits_does_not_keep_its_first_value_back() -> None:
    taker = Taker()
    await carry(at_once(100), taker)
    assert len(taker.batches[0]) <= 3
    assert len(taker.batches) == 2


async def test_what_comes_while_an_append_is_under_way_goes_together_into_the_next() -> None:
    taker = Taker()
    await carry(every(0.3, 10), taker)
    assert taker.batches == [[0], [1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize(("size", "most"), [(1, PIPE_ITEMS), (PIPE_BYTES // 4, 4), (PIPE_BYTES * 3, 1)])
async def test_a_source_that_is_too_fast_has_to_wait(size: int, most: int) -> None:
    taker, drawn = Taker(), 0

    async def counted() -> AsyncIterator[int]:
        nonlocal drawn
        async for number in at_once(1000 if most > 4 else 20):
            drawn += 1
            held = drawn - sum(map(len, taker.batches))
            assert held <= 2 * most + 1, "under way, waiting, and the one that has to wait"
            yield number

    await carry(counted(), taker, size)
    assert [number for batch in taker.batches for number in batch] == list(range(drawn))
    assert max(map(len, taker.batches)) == most


async def test_an_error_of_the_source_comes_after_what_came_before_it() -> None:
    async def broken() -> AsyncIterator[int]:
        for number in range(5):
            yield number
        raise LookupError("dry")

    taker = Taker()
    with pytest.raises(LookupError, match="dry"):
        await carry(broken(), taker)
    assert [number for batch in taker.batches for number in batch] == [0, 1, 2, 3, 4]


async def test_an_error_of_the_taker_stops_the_source_at_once() -> None:
    closed: list[float] = []

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.sleep(1000)
        finally:
            closed.append(anyio.current_time())

    began = anyio.current_time()
    with pytest.raises(ChannelUnavailableError):
        await carry(endless(), Taker(fails_at=0))
    assert closed == [began + 1]


async def test_a_cancellation_closes_the_source_where_it_was_read() -> None:
    seen: list[str] = []

    async def scoped() -> AsyncIterator[int]:
        # A cancel scope may only be left by the task that entered it, as an HTTP client's stream has it.
        with anyio.CancelScope():
            try:
                while True:
                    yield 1
                    await anyio.sleep(0.1)
            finally:
                with anyio.CancelScope(shield=True):
                    await checkpoint()
                seen.append("closed")

    with anyio.move_on_after(2.05) as scope:
        await carry(scoped(), Taker())
    assert scope.cancelled_caught
    assert seen == ["closed"]


async def test_a_generator_that_does_not_close_is_not_waited_for_for_ever() -> None:
    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=False):
                await anyio.sleep(1000)

    began = anyio.current_time()
    with anyio.move_on_after(1):
        await carry(stubborn(), Taker(seconds=0))
    assert anyio.current_time() - began <= 7


async def clings() -> AsyncIterator[int]:
    """Fail to close, by going on."""
    yield 1
    try:
        yield 2
        await anyio.sleep_forever()
    finally:
        yield 3


async def test_a_generator_that_fails_to_close_does_not_hide_why_it_was_closed() -> None:
    with anyio.move_on_after(1) as scope:
        await carry(clings(), Taker(seconds=0))
    assert scope.cancelled_caught
    with pytest.raises(ChannelUnavailableError):
        await carry(clings(), Taker(fails_at=0))


async def test_a_generator_that_fails_to_close_costs_nothing_that_came_before() -> None:
    taker = Taker()
    with pytest.raises(ZeroDivisionError):
        await Pipe[Any](taker, lambda item: 1).carry(clings(), lambda value: [1 / (2 - value)])
    assert taker.batches == [[1.0]]


async def test_a_conversion_that_fails_is_an_error_of_the_source() -> None:
    taker = Taker()
    with pytest.raises(ZeroDivisionError):
        await Pipe[Any](taker, lambda item: 1).carry(at_once(4), lambda value: [1 / (2 - value)])
    assert taker.batches == [[0.5], [1.0]] or taker.batches == [[0.5, 1.0]]


@settings(max_examples=150, deadline=None)
@given(
    pauses=st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.5, 3.0]), max_size=30),
    fails=st.booleans(),
    takes=st.sampled_from([0.0, 0.2, 1.0]),
    refuses_at=st.one_of(st.none(), st.integers(0, 5)),
    cancelled_at=st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.15, 0.5, 1.0, 2.0, 4.0])),
)
def test_whatever_ends_a_pipe_its_order_holds_and_its_source_is_closed(
    pauses: list[float], fails: bool, takes: float, refuses_at: int | None, cancelled_at: float | None
) -> None:
    taker, closed = Taker(takes, refuses_at), list[bool]()

    async def source() -> AsyncIterator[int]:
        try:
            for number, pause in enumerate(pauses):
                if pause:
                    await anyio.sleep(pause)
                yield number
            if fails:
                raise LookupError
        finally:
            closed.append(True)

    async def main() -> BaseException | None:
        with anyio.move_on_after(cancelled_at) as scope:
            try:
                await carry(source(), taker)
            except (LookupError, ChannelUnavailableError) as error:
                return error
        return TimeoutError() if scope.cancelled_caught else None

    error = run_virtually(main)
    taken = [number for batch in taker.batches for number in batch]
    assert taken == list(range(len(taken)))
    assert closed == [True] or (closed == [] and cancelled_at == 0.0), "a generator that never began needs no closing"
    if error is None or isinstance(error, LookupError):
        assert len(taken) == len(pauses)
        assert fails is (error is not None)


# --- On a channel ---------------------------------------------------------------------------------


@attrs.define
class SlowLog(Tap):
    """Appends take a second; counts them."""

    seconds: float = 1.0
    appends: int = 0

    async def before(self, call: str) -> None:
        if call == "ChannelLog.append":
            self.appends += 1
            await anyio.sleep(self.seconds)


@contextmanager
def catching(errors: list[BaseException]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        errors.append(error)
        raise


async def outputs(task: Any, *texts: str, tap: Tap | None = None, pause: float = 0.0) -> list[Any]:
    """Run *task* over *texts*, a pause before each but the first; return the data and control subtypes on ``out``."""
    world = World()
    async with world.process(tap, echo_agents({"task": task})):
        quick = world.sessions()
        session = (await quick.sessions.create(HOME, spec("task", maxAttempts=1))).session
        for number, text in enumerate(texts):
            await anyio.sleep(pause if number else 0)
            await quick.channels.append_text(session, Io.IN, text)
        await until_rest(world)
    return [record.control or data_of(record) for record in await world.records(Io.OUT)]


async def test_many_deltas_of_a_text_need_few_appends_and_keep_their_order() -> None:
    async def words(run: chat.Run) -> None:
        async def deltas() -> AsyncIterator[str]:
            for number in range(200):
                yield f"{number} "
                await anyio.sleep(0.01)

        async for turn in run.turns():
            async with turn:
                await turn.text(deltas())

    tap = SlowLog(0.2)
    found = await outputs(words, said("go"), tap=tap)
    text = "".join(chunk["delta"] for chunk in found if isinstance(chunk, dict) and chunk["type"] == "text-delta")
    assert text == "".join(f"{number} " for number in range(200))
    assert tap.appends <= 16


async def test_a_stop_is_prompt_although_much_waits_to_be_stored() -> None:
    times: list[float] = []

    async def floods(run: chat.Run) -> None:
        async def deltas() -> AsyncIterator[str]:
            for _ in range(1_000_000):
                yield "x"

        async for turn in run.turns():
            began = anyio.current_time()
            async with turn:
                await turn.text(deltas())
            times.append(anyio.current_time() - began)

    found = await outputs(floods, said("go"), STOP, tap=SlowLog(0.3), pause=1.0)
    assert times[0] <= 2.0
    kinds = [chunk if isinstance(chunk, str) else chunk["type"] for chunk in found]
    assert kinds[-4:] == ["text-end", "finish-step", "finish", "turn-complete"]
    assert 256 <= kinds.count("text-delta") <= 256 * 5


async def test_an_outbox_pipes_raw_values() -> None:
    async def raw(run: chat.Run) -> None:
        await run.inbox.wait()
        assert await run.out.pipe(at_once(3)) == 2
        assert await run.out.pipe(at_once(0)) == 2

    assert await outputs(raw, "go") == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 200, 2_000, 600_000, 1_048_500])
def test_what_is_appended_in_pieces_keeps_its_order_and_every_log_takes_each(size: int) -> None:
    count = 2_500 if size < 10_000 else 5
    records = [data_record([number, "x" * size], PartId("p")) for number in range(count)]
    cut = list(pieces(records))
    assert [record for piece in cut for record in piece] == records
    assert all(0 < len(piece) <= 1_000 for piece in cut)
    assert all(len(piece) == 1 or sum(record.metered_size for record in piece) <= 1_048_576 for piece in cut)
    assert len(cut) <= 1 + max(count / 1_000, 2 * sum(record.metered_size for record in records) / 1_048_576)
    assert list(pieces([])) == []


@pytest.mark.parametrize(
    ("bad", "error"), [(object(), TypeError), ("x" * 2_000_000, RecordTooLargeError)], ids=["no json", "too large"]
)
async def test_values_before_one_that_cannot_be_stored_are_stored(bad: Any, error: type[Exception]) -> None:
    errors: list[BaseException] = []

    async def raw(run: chat.Run) -> None:
        async def values() -> AsyncIterator[Any]:
            yield 1
            yield 2
            yield bad

        await run.inbox.wait()
        with catching(errors):
            await run.out.pipe(values())

    found = await outputs(raw, "go")
    assert found[:2] == [1, 2]
    assert [type(one) for one in errors] == [error]


async def test_a_pipe_of_a_run_that_was_replaced_raises_the_refusal_itself() -> None:
    errors: list[BaseException] = []
    world = World()

    async def raw(run: chat.Run) -> None:
        if run.is_continuation:
            return
        with catching(errors):
            await run.out.pipe(every(0.5, 100))

    async with world.process(agents=echo_agents({"task": raw})) as sessions:
        await sessions.sessions.create(HOME, spec("task"))
        await anyio.sleep(3)
        run = world.runs()[0]
        await sessions.sessions.end_and_continue(HOME.id, NAME, run.id, "upgrade")
        await until_rest(world)
    assert [type(error) for error in errors] == [StaleRunError]
    assert world.runs()[0].status.value == "CANCELED"


# --- UI-message chunks ----------------------------------------------------------------------------


async def test_chunks_of_a_model_are_piped_with_their_steps_and_without_their_ends() -> None:
    async def model() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "start", "messageId": "theirs", "messageMetadata": {"model": "m"}}
        for step in "ab":
            yield {"type": "start-step"}
            yield {"type": "reasoning-start", "id": step}
            yield {"type": "reasoning-delta", "id": step, "delta": "hm"}
            yield {"type": "reasoning-end", "id": step}
            yield {"type": "finish-step"}
        yield {"type": "finish"}

    async def pipes(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.pipe(model())

    found = await outputs(pipes, said("go"))
    step = ["start-step", "reasoning-start", "reasoning-delta", "reasoning-end", "finish-step"]
    kinds = [chunk if isinstance(chunk, str) else chunk["type"] for chunk in found]
    assert kinds == ["start", "message-metadata", *step, *step, "finish", "turn-complete"]
    assert found[0]["messageId"].startswith("msg-")


async def test_parts_that_a_piped_source_leaves_open_are_ended() -> None:
    async def breaks() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "reasoning-start", "id": "r"}
        yield {"type": "text-start", "id": "t"}
        raise LookupError

    async def pipes(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.pipe(breaks())

    kinds = [c if isinstance(c, str) else c["type"] for c in await outputs(pipes, said("go"))]
    ends = ["reasoning-end", "text-end", "error", "finish-step", "finish", "turn-complete"]
    assert kinds == ["start", "start-step", "reasoning-start", "text-start", *ends]


async def test_a_chunk_without_a_type_is_refused_before_it_breaks_a_client() -> None:
    errors: list[BaseException] = []

    async def wrong(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                with catching(errors):
                    await turn.write({"delta": "x"})

    await outputs(wrong, said("go"))
    assert [type(error) for error in errors] == [InvalidError]
