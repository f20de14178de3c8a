"""Asking all of it, and saying where the answer, or what it left behind, is another than it has to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import attrs

from harness.authorization.asking import Asker, Http1Asker, Reply, Request
from harness.authorization.kinds import Kind, Use, install
from harness.authorization.lines import LINES
from harness.authorization.oracle import SENTENCES, Case, Change, Epoch, Expected, Line, Plane, Row, expect
from harness.authorization.streams import STREAM_LINES, basin_for, expect_of_stream
from harness.authorization.world import World, part_of, whole_state
from harness.direct import SESSION
from harness.direct import Answer as FramedAnswer
from harness.in_process import ENVIRONMENT, OTHER_ENVIRONMENT

EVERY_LINE: Final[tuple[Line, ...]] = (*LINES, *STREAM_LINES)
Snapshot = Callable[[World], Awaitable[dict[str, Any]]]
OpenWorld = Callable[[], AbstractAsyncContextManager[World]]


@attrs.frozen
class Question:
    """One case of the product.

    Attributes:
        expected: The answer that the oracle gives.
    """

    line: Line
    kind: Kind
    row: Row
    epoch: Epoch
    expected: Expected

    @property
    def is_spent(self) -> bool:
        """Whether the world it was asked in is another one afterwards."""
        return self.expected.change is not Change.NONE or self.may_use_token_up

    @property
    def may_use_token_up(self) -> bool:
        """Whether a one-time token may be used up by it: whoever may ask has asked."""
        return self.kind.use is Use.ONCE and self.line.uses_up and self.expected.status not in (401, 403)

    def __str__(self) -> str:
        return f"{self.line.name} | {self.kind.name} | {self.row.name} | epoch {self.epoch.value}"


def questions(line: Line, kinds: Iterable[Kind], rows: Container[str] | None = None) -> Iterator[Question]:
    """Yield all that can be asked of *line*; of the rows, if it has several, only those whose names are in *rows*."""
    oracle = expect if line.plane is Plane.SESSIONS else expect_of_stream
    for kind in kinds:
        for row in line.rows:
            if rows is None or row.name in rows or len(line.rows) == 1:
                for epoch in line.epochs:
                    yield Question(line, kind, row, epoch, oracle(line, kind, row, epoch))


def questions_about(rows: Container[str], lines: Sequence[Line], kinds: Sequence[Kind]) -> list[Question]:
    """Return all that *kinds* can ask of *lines* about the *rows* of these names: something by each of each."""
    asked = [each for line in lines for each in questions(line, kinds, rows)]
    pairs = {(each.line.name, each.kind.name) for each in asked}
    assert pairs == {(line.name, kind.name) for line in lines for kind in kinds}, "a line has none of these rows"
    return asked


async def snapshot_of_memory(world: World) -> dict[str, Any]:
    """Return all that a world of the memory profile holds."""
    return whole_state(world)


@attrs.define(eq=False, repr=False)
class Judge:
    """Asks, in one world as long as nothing changes, and else each time in a new one.

    Attributes:
        world: The one that stays as it is.
        open_world: Opens a new one; without it, what changes something is not asked.
        tally: How many questions had which status as their answer.
    """

    world: World
    asker: Asker
    snapshot: Snapshot
    open_world: OpenWorld | None = None
    tally: Counter[int] = attrs.field(init=False, factory=Counter)
    _credentials: dict[str, str | None] = attrs.field(init=False, factory=dict)
    _state: dict[str, Any] | None = attrs.field(init=False, default=None)

    async def complaints(self, asked: Iterable[Question]) -> AsyncIterator[str]:
        """Yield what is wrong."""
        for question in asked:
            if question.is_spent and self.open_world is None:
                continue
            self.tally[question.expected.status] += 1
            wrong = await (self._ask_anew(question) if question.is_spent else self._ask(question))
            if wrong:
                yield f"{question}: {'; '.join(wrong)}"

    async def complaints_at_once(self, asked: Iterable[Question]) -> AsyncIterator[str]:
        """Yield what is wrong with the answers, and at the end what has changed: for stores that are slow to tell all."""
        before = await self.snapshot(self.world)
        for question in asked:
            if not question.is_spent:
                self.tally[question.expected.status] += 1
                if wrong := await self._faults(question):
                    yield f"{question}: {'; '.join(wrong)}"
        for each in _differences(before, await self.snapshot(self.world)):
            yield f"{each} changed"

    async def _ask(self, question: Question) -> list[str]:
        before = await self.snapshot(self.world) if self._state is None else self._state
        wrong = await self._faults(question)
        self._state = await self.snapshot(self.world)
        return [*wrong, *(f"{each} changed" for each in _differences(before, self._state))]

    async def _faults(self, question: Question) -> list[str]:
        if question.kind.name not in self._credentials:
            self._credentials[question.kind.name] = await question.kind.make(self.world)
        request = request_of(question, self.world)
        reply = await self.asker.ask(request, self._credentials[question.kind.name])
        return faults(self.world, question, request, reply)

    async def _ask_anew(self, question: Question) -> list[str]:
        assert self.open_world is not None
        async with self.open_world() as world:
            await install(world, [question.kind])
            credential, request = await question.kind.make(world), request_of(question, world)
            asker = Http1Asker(world.site.port)
            before = await self.snapshot(world)
            reply = await asker.ask(request, credential)
            after = await self.snapshot(world)
            await asker.leave()
        return [*faults(world, question, request, reply), *_wrong_changes(question, before, after)]


def request_of(question: Question, world: World) -> Request:
    """Return what is asked."""
    request = question.line.ask(Case(world=world, row=question.row, epoch=question.epoch))
    if question.line.plane is not Plane.S2:
        return request
    basin = basin_for(question.line, question.kind)
    return attrs.evolve(request, headers={**request.headers, "s2-basin": basin})


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    if before == after:
        return []
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _wrong_changes(question: Question, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    changed = _differences(before, after)
    if question.may_use_token_up:
        changed = [each for each in changed if each != "used tokens"]
    abroad = ENVIRONMENT if question.kind.is_foreign else OTHER_ENVIRONMENT
    wrong = [
        f"{each} of the other environment changed"
        for each in _differences(part_of(before, abroad), part_of(after, abroad))
    ]
    if question.expected.change is Change.SOME and not changed:
        wrong.append("nothing changed")
    if question.expected.change is Change.NONE:
        wrong += [f"{each} changed" for each in changed]
    return wrong


def faults(world: World, question: Question, request: Request, reply: Reply) -> list[str]:
    """Return what is wrong with *reply*."""
    status, body = _status_and_body(question, reply)
    expected, code = question.expected, body.get("code") if isinstance(body, dict) else None
    wrong = []
    if status != expected.status or (expected.code is not None and _has_body(question) and code != expected.code):
        wrong.append(f"expected {expected.status} {expected.code}, got {status} {body!r:.200}")
    elif status >= 400 and _has_body(question):
        wrong += _faults_of_shape(question, reply, body)
    return [*wrong, *_leaks(world, question, request, reply)]


def _status_and_body(question: Question, reply: Reply) -> tuple[int, Any]:
    """Return status and body; of a session that was refused after it had begun, those of its last frame."""
    if reply.headers.get("content-type") == SESSION:
        frames = FramedAnswer(reply.status, reply.headers, reply.body).frames
        return (reply.status, None) if frames.status is None else (frames.status, frames.error)
    return reply.status, reply.json


def _has_body(question: Question) -> bool:
    return not question.line.name.startswith(("HEAD ", "S2 HEAD "))


def _faults_of_shape(question: Question, reply: Reply, body: Any) -> list[str]:
    shape = set(body)
    if question.line.plane is Plane.S2:
        fitting = [{"code", "message"}, {"fencing_token_mismatch"}]
    else:
        members = {
            "error",
            "code",
            *(["field"] if reply.status == 400 else []),
            *(["ok"] if question.line.says_ok else []),
        }
        fitting = [members]
    wrong = [] if shape in fitting else [f"a body with {sorted(shape)}"]
    if (
        question.expected.status in SENTENCES
        and body.get("error", body.get("message")) not in SENTENCES[question.expected.status]
    ):
        wrong.append(f"it says {body!r:.200}")
    if question.line.says_ok and body.get("ok") is not False:
        wrong.append("it does not say that it is not ok")
    if question.line.plane is Plane.SESSIONS and not reply.headers.get("x-request-id"):
        wrong.append("no request id")
    if (
        reply.status == 401
        and question.line.plane is Plane.SESSIONS
        and reply.headers.get("www-authenticate") != "Bearer"
    ):
        wrong.append("no WWW-Authenticate")
    return wrong


def _leaks(world: World, question: Question, request: Request, reply: Reply) -> list[str]:
    """Return which ids an answer shows that are not for this caller: those abroad, and all if it is refused."""
    if question.line.needs is None:
        return []
    is_home = question.kind.environment == ENVIRONMENT
    hidden = world.marks[OTHER_ENVIRONMENT if is_home else ENVIRONMENT]
    if reply.status in (401, 403):
        hidden += world.marks[question.kind.environment]
    shown = reply.body.decode(errors="replace")
    return [
        f"it shows {mark}" for mark in hidden if mark in shown and mark not in request.target + request.body.decode()
    ]
