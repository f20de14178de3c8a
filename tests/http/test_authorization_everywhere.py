"""A slice of the authorization test on every profile, and over HTTP/2.

The whole of it is asked in memory (test_authorization.py). Here each class of credentials asks every route once more, where stores are
real: what is refused is refused there, too, and changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import pytest

from harness import http2
from harness.authorization.asking import Http1Asker, Http2Asker
from harness.authorization.catalogue import named
from harness.authorization.judging import EVERY_LINE, Judge, questions_about, snapshot_of_memory
from harness.authorization.kinds import install
from harness.authorization.oracle import Line
from harness.authorization.world import World, open_world, visible_state
from harness.backends import SHARED
from sessions_adapters.profiles import EMBEDDED, MEMORY, SCALE

SLICE: Final = named(
    "no header",
    "root key",
    "rotated root key in its grace",
    "rotated root key past its grace",
    "foreign root key",
    "key by friendly id",
    "key of one task",
    "revoked key",
    "session token",
    "token of the other session",
    "run token",
    "one-time token",
    "used one-time token",
    "token of the rotated key past its grace",
    "HS384 token",
    "direct writer of out",
    "direct writer of the attempt before",
)
ROWS: Final = ("by external id", "no session", "a foreign session", "its run", "a foreign run")
FEW: Final = named(
    "no header",
    "root key",
    "rotated root key past its grace",
    "session token",
    "run token",
    "used one-time token",
    "direct writer of out",
)
FEW_ROWS: Final = ("by external id", "another session", "its run")


@pytest.fixture(scope="module", params=[EMBEDDED, *SHARED])
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    async with open_world(request.param, tmp_path_factory.mktemp("data")) as opened:
        await install(opened, SLICE)
        yield opened


def lines_of(profile: str) -> list[Line]:
    """Leave out what a profile answers otherwise: S2's log has its own credentials for direct writers, or none."""
    return [line for line in EVERY_LINE if profile != SCALE or line.route[0] != "PUT"]


def check(judge: Judge, wrong: list[str], at_least: int, where: str) -> None:
    """Nothing may be wrong, and *at_least* so many questions must have been asked, so that none falls out silently."""
    count = sum(judge.tally.values())
    print(f"\n{where}: {count} questions: {dict(sorted(judge.tally.items()))}")
    assert not wrong, f"{len(wrong)} complaints:\n" + "\n".join(wrong[:40])
    assert count >= at_least, "too little was asked"


@pytest.mark.timeout(240)
async def test_everybody_gets_the_answer_that_is_due(world: World, request: pytest.FixtureRequest) -> None:
    asker = Http1Asker(world.site.port)
    judge = Judge(world, asker, visible_state)
    profile = request.node.callspec.params["world"]
    lines = lines_of(profile)
    wrong = [complaint async for complaint in judge.complaints_at_once(questions_about(ROWS, lines, SLICE))]
    await asker.leave()
    check(judge, wrong, len(lines) * len(SLICE), profile)


async def test_everybody_gets_the_same_answers_over_http_2() -> None:
    async with open_world(MEMORY, Path("unused")) as world, http2.connect(world.site.port) as connection:
        await install(world, FEW)
        judge = Judge(world, Http2Asker(connection), snapshot_of_memory)
        wrong = [complaint async for complaint in judge.complaints(questions_about(FEW_ROWS, EVERY_LINE, FEW))]
    check(judge, wrong, len(EVERY_LINE) * len(FEW), "HTTP/2")


def test_the_names_that_are_picked_are_there() -> None:
    assert {row.name for line in EVERY_LINE for row in line.rows} >= {*ROWS, *FEW_ROWS}
