"""Every route of the table and of the data plane, with every kind of credential, on every kind of row, under every epoch.

What has to be the answer is said in :mod:`harness.authorization`, without a look at the code. Whatever is refused leaves
everything as it was. ``-s`` prints how much was asked.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import pytest

from harness.authorization.asking import Http1Asker
from harness.authorization.catalogue import KINDS
from harness.authorization.judging import EVERY_LINE, Judge, questions, snapshot_of_memory
from harness.authorization.kinds import install
from harness.authorization.lines import LINES
from harness.authorization.oracle import Line
from harness.authorization.streams import STREAM_LINES, StreamLine
from harness.authorization.world import open_world
from sessions_adapters.profiles import MEMORY
from sessions_core.domain.channel import Io
from sessions_server.data_plane import service
from sessions_server.data_plane.records import Operation
from sessions_server.table import PAGE_ROUTES, ROUTES


@pytest.fixture(scope="module")
async def judge() -> AsyncGenerator[Judge]:
    """Asks in a world that has every key."""
    open_new = partial(open_world, MEMORY, Path("unused"))
    started = time.perf_counter()
    async with open_new() as world:
        await install(world, KINDS)
        asker = Http1Asker(world.site.port)
        judge = Judge(world, asker, snapshot_of_memory, open_new)
        yield judge
        await asker.leave()
    print_counts(judge, time.perf_counter() - started)


def print_counts(judge: Judge, seconds: float) -> None:
    rows = {row.name for line in EVERY_LINE for row in line.rows}
    epochs = {epoch for line in EVERY_LINE for epoch in line.epochs}
    routes = {line.route for line in EVERY_LINE}
    print(
        f"\n{len(routes)} routes asked in {len(EVERY_LINE)} ways, by {len(KINDS)} kinds of credentials, about up to {len(rows)} rows,"
        f" under up to {len(epochs)} epochs: {sum(judge.tally.values())} questions in {seconds:.1f} s"
    )
    for status, count in sorted(judge.tally.items()):
        print(f"  {status}: {count}")


@pytest.mark.parametrize("line", EVERY_LINE, ids=lambda line: line.name)
async def test_everybody_gets_the_answer_that_is_due_and_who_is_refused_changes_nothing(
    judge: Judge, line: Line
) -> None:
    wrong = [complaint async for complaint in judge.complaints(questions(line, KINDS))]
    assert not wrong, f"{len(wrong)} complaints:\n" + "\n".join(wrong[:40])


def test_no_route_of_the_tables_is_left_out() -> None:
    routes = {(each.method, each.path) for route in (*ROUTES, *PAGE_ROUTES) for each in route.expand()}
    heads = {("HEAD", path) for method, path in routes if method == "GET"}
    assert {line.route for line in LINES} == routes | heads


def test_no_operation_of_the_data_plane_is_left_out() -> None:
    asked = {(line.operation, line.io) for line in STREAM_LINES if isinstance(line, StreamLine)}
    assert asked == {(operation.value, io.value) for operation in Operation for io in Io}
    others = {line.route[1].removeprefix("/v1/").split("/")[0] for line in STREAM_LINES}
    assert set(service.MANAGEMENT) <= others


def test_every_kind_has_a_name_of_its_own_and_so_has_every_line() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert len({line.name for line in EVERY_LINE}) == len(EVERY_LINE)
