"""Runs that begin and end by hand."""

from __future__ import annotations

import attrs

from sessions_core.domain.channel import Io
from sessions_core.domain.guard import Guard
from sessions_core.domain.run import Progress, RunRecord
from sessions_core.domain.status import RunStatus
from unit.core.world import World


async def end_run(world: World, status: RunStatus = RunStatus.CRASHED, end: Progress | None = None) -> RunRecord:
    """End the current run behind everybody's back."""
    run_id = world.session().current_run_id
    assert run_id is not None
    run = world.tables.runs[run_id]
    ended = attrs.evolve(run, status=status, end=end, ended_at=world.clock.now())
    return world.tables.save_run(ended)


async def begin_run(world: World) -> RunRecord:
    """Begin the current run by hand and raise the guard of ``out``, as an executor does."""
    run_id = world.session().current_run_id
    assert run_id is not None
    ports = world.ports()
    run = await ports.runs.begin(run_id, world.tables.runs[run_id].attempt + 1)
    assert run is not None
    out = world.session().channel(Io.OUT)
    tail = await world.log.tail(out)
    assert (await world.log.set_guard(out, Guard.live(run.epoch), expect=tail.guard)).done
    return run
