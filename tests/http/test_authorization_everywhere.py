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
from harness.authorization.catalogue import KINDS
from harness.authorization.judging import EVERY_LINE, Judge, Question, questions, snapshot_of_memory
from harness.authorization.kinds import install
from harness.authorization.world import World, open_world, visible_state
from harness.backends import SHARED
from sessions_adapters.profiles import EMBEDDED, MEMORY, SCALE

SLICE: Final = tuple(
    kind
    for kind in KINDS
    if kind.name
    in {
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
        "run's token",
        "one-time token",
        "used one-time token",
        "token of the rotated key past its grace",
        "HS384 token",
        "direct writer of out",
        "direct writer of the attempt before",
    }
)
ROWS: Final = ("by external id", "no session", "a foreign session", "its run", "a foreign run")
FEW: Final = tuple(
    kind
    for kind in SLICE
    if kind.name
    in {
        "no header",
        "root key",
        "rotated root key past its grace",
        "session token",
        "run's token",
        "used one-time token",
        "direct writer of out",
    }
)


@pytest.fixture(scope="module", params=[EMBEDDED, *SHARED])
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    async with open_world(request.param, tmp_path_factory.mktemp("data")) as opened:
        await install(opened, SLICE)
        yield opened


def wanted(question: Question, profile: str) -> bool:
    """Leave out what a profile answers otherwise: S2's log has its own credentials for direct writers, or none."""
    return profile != SCALE or question.line.route[0] != "PUT"


@pytest.mark.timeout(240)
async def test_everybody_gets_the_answer_that_is_due(world: World, request: pytest.FixtureRequest) -> None:
    asker = Http1Asker(world.site.port)
    judge = Judge(world, asker, visible_state)
    profile = request.node.callspec.params["world"]
    asked = [each for line in EVERY_LINE for each in questions(line, SLICE, ROWS) if wanted(each, profile)]
    wrong = [complaint async for complaint in judge.complaints_at_once(asked)]
    await asker.leave()
    print(f"\n{profile}: {sum(judge.tally.values())} questions: {dict(sorted(judge.tally.items()))}")
    assert not wrong, f"{len(wrong)} complaints:\n" + "\n".join(wrong[:40])


async def test_everybody_gets_the_same_answers_over_http_2() -> None:
    async with open_world(MEMORY, Path("unused")) as world, http2.connect(world.site.port) as connection:
        await install(world, SLICE)
        judge = Judge(world, Http2Asker(connection), snapshot_of_memory)
        asked = [each for line in EVERY_LINE for each in questions(line, FEW, ROWS[:1])]
        wrong = [complaint async for complaint in judge.complaints(asked)]
    print(f"\nHTTP/2: {sum(judge.tally.values())} questions: {dict(sorted(judge.tally.items()))}")
    assert not wrong, f"{len(wrong)} complaints:\n" + "\n".join(wrong[:40])
