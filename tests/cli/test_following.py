"""Following a channel when the network and the server misbehave: a server that does what it is told, and a real client."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from aiohttp import ClientTimeout, web

from sessions_core.domain.channel import Io, Record
from sessions_core.errors import SessionsError
from sessions_server.cli import following, remote, tail
from sessions_server.cli.command_line import build_parser
from sessions_server.cli.following import Follower
from sessions_server.cli.remote import LostError, RefusedError, Remote, UnreachableError
from sessions_server.cli.shapes import SessionPage, SessionRow
from sessions_server.cli.terminal import Terminal
from sessions_server.cli.text import Style
from sessions_server.config import ClientConfig

Act = Callable[[web.StreamResponse], Awaitable[None]]
KEY = "tr_dev_x"


@attrs.define(eq=False)
class Script:
    """What a server does on one connection after another; the last one stays open."""

    steps: list[Any] = attrs.field(factory=list)
    asked: list[str | None] = attrs.field(factory=list)
    address: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        self.asked.append(request.headers.get("Last-Event-ID"))
        step = self.steps.pop(0) if self.steps else [stay]
        if isinstance(step, web.StreamResponse):
            return step
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", **step[0]}
            if isinstance(step[0], dict)
            else {"Content-Type": "text/event-stream"}
        )
        await response.prepare(request)
        for act in step:
            if not isinstance(act, dict):
                await act(response)
        return response


def batch(*seqs: int, at: int = 1000) -> Act:
    async def act(response: web.StreamResponse) -> None:
        found = [{"seq_num": seq, "timestamp": at + seq, "body": json.dumps({"data": seq, "id": ""})} for seq in seqs]
        content = {"records": found, "tail": {"seq_num": seqs[-1] + 1, "timestamp": at}}
        await response.write(f"event: batch\ndata: {json.dumps(content)}\n\n".encode())

    return act


def ping(next_seq: int) -> Act:
    async def act(response: web.StreamResponse) -> None:
        content = {"timestamp": 0, "tail": {"seq_num": next_seq, "timestamp": 0}}
        await response.write(f"event: ping\ndata: {json.dumps(content)}\n\n".encode())

    return act


def say(text: str) -> Act:
    async def act(response: web.StreamResponse) -> None:
        await response.write(text.encode())

    return act


async def cut(response: web.StreamResponse) -> None:
    assert response._req is not None
    assert response._req.transport is not None
    response._req.transport.abort()


async def stay(response: web.StreamResponse) -> None:
    await asyncio.sleep(60)


done = say("data: [DONE]\n\n")
lost = say('event: error\ndata: {"code":"channel_unavailable","message":"x"}\n\n')


@attrs.define
class Collected:
    """A sink that keeps what it gets, and wants so many."""

    enough: int
    seqs: list[int] = attrs.field(factory=list)
    gaps: list[tuple[int, int]] = attrs.field(factory=list)

    def take(self, record: Record) -> bool:
        self.seqs.append(record.seq)
        return len(self.seqs) == self.enough

    def miss(self, first_missing: int, first_kept: int) -> None:
        self.gaps.append((first_missing, first_kept))


@pytest.fixture
async def script() -> AsyncGenerator[Script]:
    script = Script()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    script.address = runner.addresses[0][0] + ":" + str(runner.addresses[0][1])
    yield script
    await runner.cleanup()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(following, "LONGEST_PAUSE", 0.004)
    monkeypatch.setattr(remote, "REPEAT_AFTER", (0.001, 0.002, 0.004))


def quiet_terminal() -> Terminal:
    return Terminal(Style(), False, False, io.StringIO(), io.StringIO())


@asynccontextmanager
async def connect(script: Script) -> AsyncGenerator[Remote]:
    config = ClientConfig(url=f"http://{script.address}", key=KEY)
    async with asyncio.timeout(20), Remote.connect(config) as server:
        yield server


async def follow(
    script: Script, enough: int = 0, *, next_seq: int | None = 0, stops_at_tail: bool = False
) -> Collected:
    sink = Collected(enough)
    async with connect(script) as server:
        await Follower(
            remote=server,
            terminal=quiet_terminal(),
            sink=sink,
            session="a/b",
            io=Io.OUT,
            next_seq=next_seq,
            stops_at_tail=stops_at_tail,
        ).run()
    return sink


async def test_it_goes_on_where_it_was_however_the_connection_ends(script: Script) -> None:
    refusal = web.json_response({"error": "x", "code": "channel_unavailable"}, status=503)
    half = say('event: batch\ndata: {"records": [{"seq_num": 7')
    script.steps = [
        [ping(0), batch(0, 1), cut],
        [done],
        refusal,
        [batch(2), lost],
        [batch(3), half, cut],
        [batch(4, 5)],
    ]
    assert (await follow(script, 6)).seqs == [0, 1, 2, 3, 4, 5]
    assert script.asked == [None, "1", "1", "1", "2", "3"]


async def test_what_comes_twice_is_taken_once(script: Script) -> None:
    script.steps = [[batch(0, 1, 2), batch(1, 2, 3), cut], [batch(2, 3, 4)]]
    collected = await follow(script, 5)
    assert (collected.seqs, collected.gaps) == ([0, 1, 2, 3, 4], [])


async def test_records_that_are_no_longer_kept_are_told_as_a_gap(script: Script) -> None:
    script.steps = [[batch(0, 1), cut], [{"X-Session-Gap": "5"}, batch(5), batch(8)]]
    collected = await follow(script, 4)
    assert (collected.seqs, collected.gaps) == ([0, 1, 5, 8], [(2, 5), (6, 8)])


async def test_a_channel_whose_beginning_is_gone_has_no_gap_for_who_reads_from_the_start(script: Script) -> None:
    script.steps = [[batch(5, 6)]]
    collected = await follow(script, 2)
    assert (collected.seqs, collected.gaps) == ([5, 6], [])


async def test_a_start_that_is_no_longer_kept_is_a_gap(script: Script) -> None:
    script.steps = [[{"X-Session-Gap": "5"}, batch(5)]]
    collected = await follow(script, 1, next_seq=3)
    assert (collected.gaps, script.asked) == ([(3, 5)], ["2"])


async def test_a_gap_is_told_before_the_next_record_comes(script: Script) -> None:
    script.steps = [[{"X-Session-Gap": "5"}, ping(5), stay]]
    assert (await follow(script, next_seq=3, stops_at_tail=True)).gaps == [(3, 5)]


async def test_the_end_is_asked_for_until_it_is_known_and_then_held(script: Script) -> None:
    script.steps = [[cut], [ping(7), cut], [batch(7)]]
    assert (await follow(script, 1, next_seq=None)).seqs == [7]
    assert script.asked == [str(2**53 - 1), str(2**53 - 1), "6"]


async def test_without_following_it_ends_at_the_tail_and_not_before(script: Script) -> None:
    script.steps = [[batch(0), batch(1, 2), cut], [batch(3), ping(4), stay]]
    assert (await follow(script, stops_at_tail=True)).seqs == [0, 1, 2, 3]
    script.steps = [[ping(0), stay]]
    assert (await follow(script, stops_at_tail=True)).seqs == []


async def test_a_channel_that_began_anew_is_followed_from_its_new_beginning(script: Script) -> None:
    script.steps = [[batch(0, 1, 2), cut], [batch(0, 1, at=5000)]]
    assert (await follow(script, 5)).seqs == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_ends_it_also_later(script: Script, status: int) -> None:
    def refusal() -> web.Response:
        return web.json_response({"error": "No", "code": "no"}, status=status, headers={"X-Request-Id": "r-1"})

    script.steps = [refusal()]
    with pytest.raises(RefusedError, match=r"^No \(no, request r-1\)"):
        await follow(script)
    script.steps = [[batch(0), cut], refusal()]
    with pytest.raises(RefusedError):
        await follow(script)


async def test_the_first_connection_has_to_come_about(script: Script) -> None:
    script.steps = [web.json_response({"error": "later", "code": "unavailable"}, status=503)]
    with pytest.raises(RefusedError):
        await follow(script)
    script.address = "127.0.0.1:1"
    with pytest.raises(UnreachableError, match="connection refused"):
        await follow(script)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="<html>", content_type="text/html"),
        lambda: web.Response(status=302, headers={"Location": "https://elsewhere.test/"}),
        lambda: web.Response(status=404, text="nginx"),
    ],
    ids=["page", "elsewhere", "not found"],
)
async def test_a_server_that_is_another_one_is_told_as_such(script: Script, answer: Callable[[], Any]) -> None:
    script.steps = [answer()]
    with pytest.raises(RefusedError, match="as no sessions server does") as refusal:
        await follow(script)
    assert not refusal.value.is_not_found


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "5",
        '"x"',
        "null",
        "<html>",
        '{"data": null, "pagination": {}, "seq": null}',
        '{"data": [{}, 5], "pagination": {}, "seq": "x"}',
    ],
)
async def test_an_answer_that_is_another_servers_is_told_as_such(script: Script, text: str) -> None:
    script.steps = [web.Response(text=text, content_type="application/json") for _ in range(2)]
    async with connect(script) as server:
        with pytest.raises(RefusedError, match="answered 200, as no sessions server does"):
            await server.get("/api/v1/sessions", SessionPage)
        with pytest.raises(RefusedError, match="answered 200, as no sessions server does"):
            await server.append("a/b", Io.IN, "text", "part")


@pytest.mark.parametrize("moment", [5, "never", "2026-01-01T00:00:00"])
async def test_a_time_that_is_none_is_another_servers(script: Script, moment: Any) -> None:
    texts = dict.fromkeys(("id", "type", "taskIdentifier", "createdAt", "updatedAt"), "x")
    nothing = dict.fromkeys(("externalId", "metadata", "closedReason", "expiresAt"))
    script.steps = [
        web.json_response({**texts, **nothing, "tags": [], "closedAt": moment, "more": 1}) for _ in range(2)
    ]
    async with connect(script) as server:
        with pytest.raises(RefusedError, match="as no sessions server does"):
            await server.get("/", SessionRow)
        script.steps = [web.json_response({**texts, **nothing, "tags": [], "closedAt": "2026-01-01T00:00:00.000Z"})]
        assert (await server.get("/", SessionRow))["id"] == "x"


async def test_a_gap_that_is_no_number_is_another_servers(script: Script) -> None:
    script.steps = [[{"X-Session-Gap": "abc"}, ping(0), stay]]
    with pytest.raises(RefusedError, match="as no sessions server does"):
        await follow(script)


@pytest.mark.parametrize("host", ["a..b", ".", "x" * 64], ids=["empty label", "dot", "long label"])
async def test_a_name_that_nobody_can_have_is_told_as_such(script: Script, host: str) -> None:
    script.address = f"{host}:1"
    with pytest.raises(UnreachableError, match="no host's name"):
        await follow(script)


async def test_numbers_that_are_none_are_trouble_of_the_connection(script: Script) -> None:
    endless = '{"records":[{"seq_num":1e999,"timestamp":0}],"tail":{"seq_num":1,"timestamp":0}}'
    script.steps = [[batch(0), say(f"event: batch\ndata: {endless}\n\n"), stay], [batch(1)]]
    assert (await follow(script, 2)).seqs == [0, 1]


# --- appends ---


async def append(script: Script) -> int:
    async with connect(script) as server:
        return await server.append("a/b", Io.IN, "text", "part")


def stored() -> web.Response:
    return web.json_response({"ok": True, "seq": 3})


async def test_an_append_is_repeated_until_its_outcome_is_known(script: Script) -> None:
    def refused(status: int, **headers: str) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response({"ok": False, "error": "x", "code": "x"}, status=status, headers=named)

    script.steps = [[cut], refused(503), refused(409, x_should_retry="true"), stored()]
    assert await append(script) == 3
    script.steps = [refused(409, x_should_retry="false"), stored()]
    with pytest.raises(RefusedError):
        await append(script)


async def test_an_append_gives_up_after_some_time(script: Script) -> None:
    script.steps = [[cut]] * 10
    with pytest.raises(LostError):
        await append(script)
    assert len(script.asked) == 4


async def test_a_server_that_never_answers_is_not_waited_for_again_and_again(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_CALL", ClientTimeout(total=0.2))
    monkeypatch.setattr(remote, "REPEAT_WITHIN", 0.3)
    with pytest.raises(LostError, match="no answer in time"):
        await append(script)
    assert len(script.asked) == 2


async def test_a_server_that_was_never_there_is_not_waited_for(script: Script) -> None:
    script.address = "127.0.0.1:1"
    with pytest.raises(SessionsError, match="sessions serve"):
        await append(script)


async def test_records_without_a_session_are_read_to_their_end(script: Script) -> None:
    script.steps = [web.json_response({"error": "x", "code": "session_not_found"}, status=404), [batch(0), ping(1)]]
    arguments = build_parser().parse_args(["tail", "orphan", "--no-follow"])
    async with connect(script) as server:
        assert await tail.run(server, quiet_terminal(), arguments) == 0
