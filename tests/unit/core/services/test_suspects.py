"""Scratch: expected bugs."""
from __future__ import annotations
from datetime import timedelta
import anyio, pytest, json
import attrs
from unit.core.kit import *
from unit.core.kit import Tapped
from sessions_core import chat
from sessions_core.domain.channel import *
from sessions_core.domain.guard import *
from sessions_core.domain.waitpoint import WaitpointStatus
from sessions_core.services.wait_service import WaitRequest
from sessions_core.services import run_manager, closing
from sessions_core.errors import *

async def test_stop_does_not_keep_run_forever():
    world = World()
    async with world.process() as p:
        s = (await p.sessions.create(HOME, spec())).session
        await say(p, "hello")
        await anyio.sleep(1)
        await p.channels.append_text(s, Io.IN, STOP)
        await anyio.sleep(20)
        assert [r for r in world.runs() if r.is_alive] == []

async def test_stop_in_turn_does_not_keep_run_forever():
    world = World()
    agents = chat.Agents()
    @agents.task("slow")
    async def slow(run):
        async for turn in run.turns():
            async with turn:
                await turn.text("x")
                await anyio.sleep(5)
    async with world.process(agents=agents) as p:
        s = (await p.sessions.create(HOME, spec("slow"))).session
        await say(p, "hello")
        await anyio.sleep(1)
        await p.channels.append_text(s, Io.IN, STOP)
        await anyio.sleep(20)
        assert [r for r in world.runs() if r.is_alive] == []
        assert len(world.runs()) == 1

class Slow(Tap):
    def __init__(self, *calls, seconds=60.0): self.calls=calls; self.on=False; self.seconds=seconds
    async def before(self, call):
        if self.on and call in self.calls: await anyio.sleep(self.seconds)

async def test_claim_timeout():
    world = World()
    async with world.process() as p:
        s = (await p.sessions.create(HOME, spec())).session
        await anyio.sleep(10)
    tap = Slow("SessionStore.claim_run"); tap.on=True
    p = world.sessions(tap)
    with pytest.raises(UnavailableError):
        await say(p, "hello") if await p.sessions.get(HOME.id, NAME) else None

async def test_seal_timeout():
    world = World()
    async with world.process() as p:
        s = (await p.sessions.create(HOME, spec())).session
        await anyio.sleep(10)
    tap = Slow("ChannelLog.set_guard"); tap.on=True
    p = world.sessions(tap)
    with pytest.raises(UnavailableError):
        await p.sessions.close(HOME.id, NAME, "x")

async def test_settled_reading_with_lagging_feed():
    world = World()
    class Late(Tap): pass
    sessions = world.sessions()
    s = (await sessions.sessions.create(HOME, spec())).session
    ch = s.channel(Io.OUT)
    class LateTapped(Tapped):
        @asynccontextmanager
        async def _follow(self, channel, start):
            async with self._inner.follow(channel, start) as batches:
                async def gen():
                    async for b in batches:
                        await anyio.sleep(1)
                        yield b
                yield gen()
    sessions = world.sessions(log=LateTapped(world.log, Tap()))
    async with sessions.hub:
        async with sessions.channels.subscribe(ch) as first:
            await anyio.sleep(0.1)
            await world.log.append(ch, [data_record(1, PartId("a")), control_record(TURN_COMPLETE)], guard=UNTOUCHED)
            async with sessions.channels.subscribe(ch, peek_settled=True) as r:
                assert r.settled
                got = []
                while (b := await r.next()) is not None: got += b.records
                assert [x.seq for x in got] == [0,1]

async def test_wake_order():
    world = World()
    sessions = world.sessions()
    s = (await sessions.sessions.create(HOME, spec())).session
    ch = s.channel(Io.IN)
    run = s.current_run_id
    # append 0 stored, its wake late
    rec0, rec1 = data_record("zero", PartId("0")), data_record("one", PartId("1"))
    a0 = await world.log.append(ch, [rec0], guard=UNTOUCHED)
    w = (await sessions.waits.create(HOME.id, run, WaitRequest(session=NAME, io=Io.IN))).waitpoint
    await sessions.waits.wake(ch, [rec0], a0)
    assert (await sessions.waits.get(HOME.id, w.id)).is_waiting
    a1 = await world.log.append(ch, [rec1], guard=UNTOUCHED)
    await sessions.waits.wake(ch, [rec1], a1)
    got = await sessions.waits.get(HOME.id, w.id)
    assert (got.output, got.seq) == ("one", 1)

async def test_wake_racing():
    world = World()
    sessions = world.sessions()
    s = (await sessions.sessions.create(HOME, spec())).session
    ch = s.channel(Io.IN)
    w = (await sessions.waits.create(HOME.id, s.current_run_id, WaitRequest(session=NAME, io=Io.IN))).waitpoint
    rec0, rec1 = data_record("zero", PartId("0")), data_record("one", PartId("1"))
    a0 = await world.log.append(ch, [rec0], guard=UNTOUCHED)
    a1 = await world.log.append(ch, [rec1], guard=UNTOUCHED)
    await sessions.waits.wake(ch, [rec1], a1)
    await sessions.waits.wake(ch, [rec0], a0)
    got = await sessions.waits.get(HOME.id, w.id)
    assert (got.output, got.seq) == ("zero", 0)

async def test_begin_unavailable():
    world = World()
    tap = FailAt(0, lambda c: StoreUnavailableError())
    class T(Tap):
        n=0
        async def before(self, call):
            if call == "RunStore.begin" and self.n < 1:
                self.n += 1
                raise StoreUnavailableError
    sessions = world.sessions(T(), echo_agents())
    async with sessions.hub:
        s = (await sessions.sessions.create(HOME, spec())).session
        await sessions.executor.execute(s.current_run_id)
        assert world.runs()[0].attempt == 1

async def test_expire_after_record():
    world = World()
    sessions = world.sessions()
    s = (await sessions.sessions.create(HOME, spec())).session
    ch = s.channel(Io.IN)
    w = (await sessions.waits.create(HOME.id, s.current_run_id, WaitRequest(session=NAME, io=Io.IN, timeout="5s"))).waitpoint
    await world.log.append(ch, [data_record("zero", PartId("0"))], guard=UNTOUCHED)
    await anyio.sleep(6)
    await sessions.sweep.sweep()
    got = await sessions.waits.get(HOME.id, w.id)
    assert (got.output, got.seq) == ("zero", 0)
