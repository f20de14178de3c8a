"""The order desk, once with aiohttp and once with FastAPI, as real processes."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import anyio
import pytest

from harness.desk import Desk, DeskProcess, chunk_type, last_id, text_of

pytestmark = pytest.mark.slow

NUMBERS = itertools.count()
LONG_ORDER = ", ".join(f"item {number}" for number in range(40))  # two seconds


@pytest.fixture(scope="module", params=["embedded_service.py", "fastapi_service.py"])
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeskProcess]:
    """One process for all tests of a service; those that end it start it again."""
    with DeskProcess(tmp_path_factory.mktemp("desk"), script=request.param) as process:
        yield process


@pytest.fixture
async def desk(process: DeskProcess) -> AsyncIterator[Desk]:
    """The desk as a tenant of the test's own sees it."""
    async with aiohttp.ClientSession() as http:
        yield Desk(process, http, f"tenant-{next(NUMBERS)}")


async def test_an_order_is_placed_once_it_has_been_approved(desk: Desk) -> None:
    order = await desk.say("1", "3 chairs, 1 desk")
    asked = await desk.until("1", "turn-complete")
    assert text_of(asked) == "3 chairs: in stock. 1 desk: in stock. "
    assert [frame.data["data"]["data"] for frame in asked if chunk_type(frame) == "data-decision-wanted"] == [
        {"order": order}
    ]
    await desk.decide("1", order, approve=True)
    assert text_of(await desk.until("1", "turn-complete", last_id(asked))) == "Ordered: 3 chairs, 1 desk"


async def test_a_decision_reaches_an_order_from_before_a_restart(desk: Desk) -> None:
    order = await desk.say("1", "3 chairs")
    asked = await desk.until("1", "turn-complete")
    assert desk.process.stop() == 0
    desk.process.start()
    await desk.decide("1", order, approve=False)
    assert text_of(await desk.until("1", "turn-complete", last_id(asked))) == "Not ordered: 3 chairs"


@pytest.mark.parametrize("number", [-1, 1, 2, 99, 10**30])
async def test_a_decision_about_what_is_no_order_says_so(desk: Desk, number: int) -> None:
    asked = await desk.say("1", "3 chairs")
    seen = await desk.until("1", "turn-complete")
    assert asked == 0
    await desk.decide("1", number, approve=True)
    assert text_of(await desk.until("1", "turn-complete", last_id(seen))) == f"There is no order {number}."


async def test_a_decision_about_no_order_does_not_take_a_later_order_for_it(desk: Desk) -> None:
    await desk.say("1", LONG_ORDER)
    await desk.decide("1", 99, approve=True)
    await desk.say("1", "a table")
    assert text_of(await desk.until("1", "turn-complete", times=2)) == "There is no order 99."


async def test_an_answer_is_completed_after_a_kill_in_its_middle(desk: Desk) -> None:
    order = await desk.say("1", LONG_ORDER)
    seen = await desk.until("1", "text-delta", times=3)
    desk.process.kill()
    desk.process.start()
    seen += await desk.until("1", "turn-complete", last_id(seen))
    assert text_of(seen).count("in stock") == 40
    assert seen[-1].data["session-in-event-id"] == str(order)
    assert [int(frame.id or -1) for frame in seen] == list(range(len(seen)))


async def test_a_service_that_is_asked_to_end_lets_its_answers_be_finished(desk: Desk) -> None:
    await desk.say("1", LONG_ORDER)
    ended = anyio.Event()

    async def read_to_the_end() -> None:
        async for _ in desk.follow("1"):
            pass
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_to_the_end)
        await desk.until("1", "text-delta")
        assert await anyio.to_thread.run_sync(desk.process.stop) == 0
        with anyio.fail_after(10):
            await ended.wait()
    desk.process.start()
    seen = await desk.until("1", "turn-complete")
    assert text_of(seen).count("in stock") == 40
    assert [chunk_type(frame) for frame in seen].count("start") == 1


async def test_a_stop_ends_the_answer_being_written(desk: Desk) -> None:
    await desk.say("1", LONG_ORDER)
    seen = await desk.until("1", "text-delta")
    stop = await desk.stop("1")
    seen += await desk.until("1", "turn-complete", last_id(seen))
    assert seen[-1].data["session-in-event-id"] == str(stop)
    assert 0 < text_of(seen).count("in stock") < 40


async def test_a_message_that_is_sent_again_with_its_key_is_stored_once(desk: Desk) -> None:
    assert await desk.say("1", "chairs", Idempotency_Key="k1") == 0
    assert await desk.say("1", "chairs", Idempotency_Key="k1") == 0
    assert await desk.say("1", "desks", Idempotency_Key="k2") == 1


async def test_tenants_do_not_see_each_others_chats(desk: Desk) -> None:
    order = await desk.say("1", "a secret")
    await desk.until("1", "turn-complete")
    other = desk.as_tenant("another")
    for method, path, body in [
        ("GET", "1/answers", None),
        ("POST", "1/stop", None),
        ("POST", "1/decisions", {"order": order, "approve": True}),
    ]:
        assert (await other.call(method, path, body)).status == 404
    assert await other.say("1", "their own") == 0
    assert text_of(await other.until("1", "turn-complete")) == "their own: in stock. "
    await other.decide("1", order, approve=True)
    assert "secret" not in text_of(await other.until("1", "turn-complete", times=2))


async def test_who_names_no_tenant_is_sent_away(desk: Desk) -> None:
    answer = await desk.as_tenant(None).call("GET", "1/answers")
    assert (answer.status, answer.body) == (401, {"error": "X-Tenant is missing"})


async def test_a_body_that_is_not_packed_as_it_says_is_refused(desk: Desk) -> None:
    answer = await desk.call("POST", "1/messages", "not packed at all", Content_Encoding="gzip")
    assert answer.status == 400
    assert answer.body["error"]


async def test_a_body_that_is_too_large_is_refused(desk: Desk) -> None:
    body = io.BytesIO(json.dumps({"text": "x" * 2_000_000}).encode())
    headers = {"X-Tenant": str(desk.tenant), "Content-Type": "application/json"}
    async with desk.http.post(f"{desk.process.address}/chats/1/messages", data=body, headers=headers) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("1/messages", {}),
        ("1/messages", {"text": 1}),
        ("1/messages", []),
        ("1/messages", "{broken"),
        ("1/messages", b"\xff"),
        ("1/messages", "[" * 100_000),
        ("session_1/messages", {"text": "an id that is not for the caller to give"}),
        ("1/decisions", {"order": "0", "approve": True}),
        ("1/decisions", {"order": True, "approve": True}),
        ("1/decisions", {"order": 0, "approve": 1}),
    ],
)
async def test_bad_input_is_refused_with_a_reason(desk: Desk, path: str, body: Any) -> None:
    await desk.say("1", "a chair")
    answer = await desk.call("POST", path, body)
    assert answer.status == 400
    assert answer.body["error"]


@pytest.mark.parametrize("after", ["x", "-1", "9" * 5000, "%00"])
async def test_a_reader_that_names_no_seq_is_refused(desk: Desk, after: str) -> None:
    await desk.say("1", "a chair")
    assert (await desk.call("GET", f"1/answers?after={after}")).status == 400


async def test_an_unknown_chat_is_not_found(desk: Desk) -> None:
    for method, path in [("GET", "nobody/answers"), ("POST", "nobody/stop")]:
        assert (await desk.call(method, path)).status == 404
