"""The library over S2: messages are answered, and changes of guards are mistaken for none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from adapters.s2.conftest import config
from sessions_adapters.profiles import Backends, open_sessions
from sessions_core.domain.channel import Io, Record, RecordKind
from sessions_core.domain.session import Session
from sessions_core.errors import SessionClosedError
from sessions_core.facade import Sessions
from unit.core.chats import HOME, echo_agents, said, spec

pytestmark = pytest.mark.needs_s2


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    """Sessions of which only the channels are in S2."""
    options = config()
    backends = Backends(profile="memory", s2_url=f"s2://{options.basin}?endpoint={options.endpoint}")
    async with open_sessions(backends, agents=echo_agents()) as sessions:
        yield sessions


async def answers(sessions: Sessions, session: Session, count: int) -> list[Record]:
    """Return what is on ``out`` once there are *count* turn-completes."""
    with anyio.fail_after(20):
        while True:
            found = (await sessions.channels.log.read(session.channel(Io.OUT), 0, 1000)).records
            if len([record for record in found if record.control == "turn-complete"]) == count:
                return list(found)
            await anyio.sleep(0.01)


async def test_each_message_is_answered_once_over_runs_that_leave(sessions: Sessions) -> None:
    session = (await sessions.sessions.create(HOME, spec(idle=0.2))).session
    found: list[Record] = []
    for number in range(1, 4):
        current = await sessions.sessions.get(HOME.id, session.id)
        await sessions.channels.append_text(current, Io.IN, said(f"hello {number}"))
        found = await answers(sessions, session, number)
        with anyio.fail_after(20):
            while (await sessions.channels.log.tail(session.channel(Io.IN))).guard.is_live:
                await anyio.sleep(0.01)
    texts = b"".join(record.body for record in found)
    assert all(texts.count(b"hello %d" % number) >= 1 for number in (1, 2, 3))
    assert len(await sessions.sessions.list_runs(HOME.id, session.id)) == 3


async def test_closed_is_closed(sessions: Sessions) -> None:
    session = (await sessions.sessions.create(HOME, spec(idle=0.2))).session
    await sessions.channels.append_text(session, Io.IN, said("hello"))
    await answers(sessions, session, 1)
    await sessions.sessions.close(HOME.id, session.id, "done")
    with pytest.raises(SessionClosedError):
        await sessions.channels.append_text(session, Io.IN, said("late"))
    for io in Io:
        channel = session.channel(io)
        assert (await sessions.channels.log.tail(channel)).guard.is_sealed
        found = (await sessions.channels.log.read(channel, 0, 1000)).records
        assert found[-1].kind is RecordKind.COMMAND
