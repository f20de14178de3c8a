"""What must hold once everything has come to rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise

import anyio

from sessions_adapters import memory
from sessions_core import chat
from sessions_core.domain.channel import SESSION_CLOSED, TURN_COMPLETE, Envelope, Io, Record, RecordKind, committed_by
from sessions_core.domain.session import Session
from unit.core.chats import NAME, data_of
from unit.core.world import World


def input_texts(records: list[Record]) -> dict[int, str]:
    """Return the texts of the chat messages among the records of ``in``."""
    texts = {}
    for record in records:
        given = chat.Input.parse(data_of(record))
        if given is not None and given.kind == "message" and given.trigger == "submit-message":
            texts[record.seq] = chat.text_of(given.payload.get("message"))
    return texts


async def check_promises(world: World, acknowledged: Mapping[str, int], name: str = NAME) -> None:
    """Check promises 1 to 4 of the design over what is stored, once everything has come to rest.

    Args:
        world: The world.
        acknowledged: The texts whose append returned, and the seqs it gave.
        name: Which session.
    """
    session = world.session(name)
    inputs, outputs = await world.records(Io.IN, name), await world.records(Io.OUT, name)
    assert [record.seq for record in inputs] == list(range(len(inputs)))
    assert [record.seq for record in outputs] == list(range(len(outputs)))

    texts = input_texts(inputs)
    assert len(set(texts.values())) == len(texts), f"stored twice: {texts}"
    for text, seq in acknowledged.items():
        assert texts.get(seq) == text, f"{text!r} was acknowledged at {seq}, but: {texts}"

    epochs = [
        data_of(record)["data"]["epoch"]
        for record in outputs
        if record.kind is RecordKind.DATA and data_of(record)["type"] == "data-by"
    ]
    assert all(a <= b for a, b in pairwise(epochs)), f"two runs wrote at once: {epochs}"

    completed = Counter(
        committed_by(record)
        for record in outputs
        if record.control == TURN_COMPLETE and record.header(SESSION_CLOSED) is None
    )
    assert all(count == 1 for count in completed.values()), f"answered more than once: {completed}"
    over = session.refusal(world.clock.now())
    if over is None:
        assert set(texts) <= set(completed), f"never answered: {texts.keys() - completed.keys()}"
    else:
        await _check_closed(world, session, inputs, outputs)
    await check_rest(world)


async def _check_closed(world: World, session: Session, inputs: list[Record], outputs: list[Record]) -> None:
    assert session.sealed_at is not None
    for io in Io:
        assert (await world.log.tail(session.channel(io))).guard.is_sealed
    signals = [
        record for record in inputs if Envelope.parse(record.body) and data_of(record) and "close" in data_of(record)
    ]
    assert len(signals) == 1
    endings = [record for record in outputs if record.header(SESSION_CLOSED) == "true"]
    assert len(endings) == 1
    assert endings[0] is outputs[-1]
    reason = session.closed_reason if session.closed_at else "expired"
    assert endings[0].header("session-closed-reason") == reason
    covered = committed_by(endings[0])
    assert covered is not None
    assert covered >= signals[0].seq


async def until_rest(world: World, longest: float = 600) -> None:
    """Let time pass until nothing is left to do, or the *longest* time is over."""
    end = anyio.current_time() + longest
    while anyio.current_time() < end:
        await anyio.sleep(5)
        with suppress(AssertionError):
            await check_rest(world)
            return


async def check_rest(world: World) -> None:
    """Check that nothing is left over for anybody to repair."""
    backlog, later = memory.InMemoryBacklog(world.tables), world.clock.now() + timedelta(days=1)
    assert await backlog.list_undispatched(later, 10) == []
    assert await backlog.list_stalled(later, 10) == []
    assert await backlog.list_unsettled(10) == []
    assert await backlog.list_unsealed(10) == []
    assert [run for run in world.runs() if run.is_alive] == []
