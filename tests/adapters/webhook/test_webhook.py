"""What is posted to an engine, and what happens when the engine does not take it."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from aiohttp import ClientSession

from contract.makers import initial, make_session
from harness.receiver import RECEIVER, SECRET, is_genuine
from sessions_adapters.profiles import Backends, Health, diagnose
from sessions_adapters.system import SystemClock
from sessions_adapters.webhook import WebhookConfig, WebhookRunDispatcher
from sessions_adapters.webhook.requests import cancellation
from sessions_adapters.webhook.rests import Rests
from sessions_adapters.webhook.signing import parse_secret, sign
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import DispatcherUnavailableError, InvalidError
from sessions_core.ports.clock import Clock
from sessions_core.testing import ManualClock

CLOCK = SystemClock()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another".ljust(24, b".")).decode()


@attrs.define(eq=False)
class Engine:
    """The receiver, as a test sees it."""

    http: ClientSession
    address: str = attrs.field(factory=RECEIVER.get)

    async def tell(self, what: str, value: Any = None) -> None:
        async with self.http.post(f"{self.address}/{what}", json=value) as response:
            assert response.status == 200

    async def requests(self) -> list[dict[str, Any]]:
        async with self.http.get(f"{self.address}/requests") as response:
            return list(await response.json())

    @asynccontextmanager
    async def dispatcher(
        self, secrets: str = SECRET, clock: Clock = CLOCK, **options: Any
    ) -> AsyncGenerator[WebhookRunDispatcher]:
        async def issue(run: RunRecord) -> str:
            return f"token of {run.id}"

        config = WebhookConfig(url=options.pop("url", f"{self.address}/runs"), secrets=secrets, **options)
        async with WebhookRunDispatcher.connect(config, issue, clock) as dispatcher:
            yield dispatcher


@pytest.fixture
async def engine() -> AsyncGenerator[Engine]:
    async with ClientSession() as http:
        engine = Engine(http)
        await engine.tell("forget")
        yield engine


def make_run(name: str = "one", **members: Any) -> RunRecord:
    return initial(make_session(name, **members))


# --- signatures ---


def test_the_signature_is_that_of_the_specification() -> None:
    secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_example_of_the_page_is_what_we_sign() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "run-on-your-own-engine.md").read_text()
    given = dict(re.findall(r'^(secret|body) = b?["\'](.+)["\']$', page, re.MULTILINE))
    ((message_id, timestamp),) = re.findall(r'message_id, timestamp = "(.+)", "(\d+)"', page)
    (signature,) = re.findall(r'signature == "(.+)"', page)
    body = given["body"].encode()
    assert sign(message_id, int(timestamp), body, [parse_secret(given["secret"])]) == signature
    assert cancellation(RunId("run_example"), datetime(2026, 11, 21, 12, tzinfo=UTC)) == body


@pytest.mark.parametrize(
    "text",
    ["", "hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_" + base64.b64encode(b"x" * 65).decode(), "whsec_" + "!" * 40],
)
def test_a_secret_that_is_none_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidError, match="webhook_secret must be whsec_") as caught:
        WebhookConfig(url="https://engine.example", secrets=text)
    assert not text.removeprefix("whsec_") or text not in str(caught.value)


@pytest.mark.parametrize("url", ["", "engine.example", "ftp://engine.example", "https://", "http://x:0/", "http://[x/"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidError, match="webhook_url must be the address"):
        WebhookConfig(url=url, secrets=SECRET)


def test_neither_secret_nor_url_is_in_the_repr() -> None:
    config = WebhookConfig(url="https://user:hunter2@engine.example", secrets=SECRET)
    assert "hunter2" not in repr(config)
    assert "harness" not in repr(config)


# --- what is posted ---


async def test_a_run_request_says_what_an_engine_needs(engine: Engine) -> None:
    config = TriggerConfig({"basePayload": {"a": 1}, "queue": "q", "maxDuration": 9, "idleTimeoutInSeconds": 5})
    run = make_run(external_id="chat.1", trigger_config=config)
    async with engine.dispatcher() as dispatcher:
        await dispatcher.dispatch(run)
    (request,) = await engine.requests()
    headers, body = request["headers"], request["body"]
    assert (headers["webhook-id"], headers["Content-Type"]) == (run.id, "application/json")
    assert body["type"] == "run.requested"
    age = datetime.now(UTC) - datetime.fromisoformat(body["timestamp"])
    assert timedelta() <= age < timedelta(minutes=1)
    assert body["data"] == {
        "runId": run.id,
        "attempt": 1,
        "sessionId": run.session_id,
        "externalId": "chat.1",
        "taskIdentifier": "echo",
        "reason": "initial",
        "previousRunId": None,
        "payload": {"a": 1, "idleTimeoutInSeconds": 5, "sessionId": run.session_id},
        "options": {"queue": "q", "maxDuration": 9},
        "token": f"token of {run.id}",
    }


@pytest.mark.parametrize(("off", "is_taken"), [(-290, True), (290, True), (-310, False), (310, False)])
async def test_a_request_is_of_the_time_that_the_stores_clock_shows(engine: Engine, off: int, is_taken: bool) -> None:
    """Which may be the database's: a server whose own clock is wrong is understood all the same."""
    clock = ManualClock(datetime.now(UTC) + timedelta(seconds=off))
    async with engine.dispatcher(clock=clock) as dispatcher:
        with nullcontext() if is_taken else pytest.raises(DispatcherUnavailableError):
            await dispatcher.dispatch(make_run())


async def test_a_cancellation_has_an_id_of_its_own(engine: Engine) -> None:
    run = make_run()
    async with engine.dispatcher() as dispatcher:
        await dispatcher.dispatch(run)
        await dispatcher.cancel(run.id)
    _, request = await engine.requests()
    assert request["headers"]["webhook-id"] == f"{run.id}-cancel"
    assert (request["body"]["type"], request["body"]["data"]) == ("run.canceled", {"runId": run.id})


async def test_while_a_secret_is_replaced_both_sign(engine: Engine) -> None:
    async with engine.dispatcher(f"{OTHER_SECRET} {SECRET}") as dispatcher:
        await dispatcher.dispatch(make_run())
    assert len(await engine.requests()) == 1


async def test_an_engine_refuses_what_another_secret_signed(engine: Engine) -> None:
    async with engine.dispatcher(OTHER_SECRET) as dispatcher:
        with pytest.raises(DispatcherUnavailableError):
            await dispatcher.dispatch(make_run())


def test_the_harness_itself_refuses_a_changed_body_and_an_old_timestamp() -> None:
    now = int(datetime.now(UTC).timestamp())
    for timestamp, body, genuine in ((now, b"x", True), (now, b"y", False), (now - 301, b"x", False)):
        signature = sign("m", timestamp, b"x", [parse_secret(SECRET)])
        headers = {"webhook-id": "m", "webhook-timestamp": str(timestamp), "webhook-signature": signature}
        assert is_genuine(headers, body) is genuine


# --- an engine that does not take it ---


@pytest.mark.parametrize("status", [301, 307, 400, 404, 410, 500])
async def test_a_run_that_is_refused_is_left_alone_for_a_moment_and_others_go_on(engine: Engine, status: int) -> None:
    refused, other = make_run(), make_run("other")
    await engine.tell("misbehave", [status])
    async with engine.dispatcher() as dispatcher:
        for _ in range(3):
            with pytest.raises(DispatcherUnavailableError):
                await dispatcher.dispatch(refused)
        await dispatcher.dispatch(other)
    assert [request["body"]["data"]["runId"] for request in await engine.requests()] == [other.id]


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"120", 120),
        (b"0", 1),
        (b"999999999999", 300),
        (b"-5", 1),
        (b"\xc2\xb2", 1),
        (b"Sat, 21 Nov 2026 12:00:00 GMT", 1),
    ],
)
@pytest.mark.parametrize("status", [b"503 Service Unavailable", b"429 Too Many Requests", b"400 Bad Request"])
async def test_an_engine_says_how_long_it_wants_to_be_left_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, status: bytes, said: bytes, seconds: float
) -> None:
    now = [0.0]
    monkeypatch.setattr("sessions_adapters.webhook.dispatcher._monotonic", lambda: now[0])
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nRetry-After: " + said + b"\r\n\r\n"
    asked = []
    async with answering(answer) as url, engine.dispatcher(url=url) as dispatcher:
        for now[0] in (1000.0, 1000.0 + 0.7 * seconds, 1000.0 + 2.6 * seconds):
            with pytest.raises(DispatcherUnavailableError) as caught:
                await dispatcher.dispatch(make_run())
            asked.append(caught.value.was_asked)
    assert asked == [True, False, True]


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
async def test_an_engine_that_can_take_nothing_is_left_alone_for_a_moment(engine: Engine, status: int) -> None:
    await engine.tell("misbehave", [status])
    was_asked = []
    async with engine.dispatcher() as dispatcher:
        for name in ("one", "two"):
            with pytest.raises(
                DispatcherUnavailableError, match="The engine behind webhook_url is unavailable"
            ) as caught:
                await dispatcher.dispatch(make_run(name))
            was_asked.append(caught.value.was_asked)
    assert was_asked == [True, False]
    assert await engine.requests() == []


async def test_an_engine_that_does_not_answer_costs_its_time_out_once(engine: Engine) -> None:
    await engine.tell("misbehave", [30.0])
    async with engine.dispatcher(timeout=timedelta(milliseconds=200)) as dispatcher:
        with pytest.raises(DispatcherUnavailableError) as caught, anyio.fail_after(10):
            await dispatcher.dispatch(make_run())
        began = anyio.current_time()
        for number in range(100):
            with pytest.raises(DispatcherUnavailableError):
                await dispatcher.dispatch(make_run(f"{number}"))
        assert anyio.current_time() - began < 0.2, "none of them waited"
    assert isinstance(caught.value.__cause__, TimeoutError)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[str]:
    """Somebody who reads a bit of each request, says *answer* and keeps the connection open; gives the address."""

    async def answer_it(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(answer)
            await anyio.sleep_forever()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer_it)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/runs"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("size", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
async def test_an_answer_is_not_read_to_its_end(engine: Engine, size: bytes) -> None:
    async with (
        answering(b"HTTP/1.1 202 Accepted\r\n" + size + b"\r\n\r\n") as url,
        engine.dispatcher(url=url, timeout=timedelta(minutes=10)) as dispatcher,
    ):
        with anyio.fail_after(30):
            for name in ("one", "two", "three"):
                await dispatcher.dispatch(make_run(name))


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 99999 No\r\n\r\n",
    ],
    ids=["no HTTP", "headers without end", "wrong length", "wrong status"],
)
async def test_what_is_no_answer_is_a_failure_of_the_engine(engine: Engine, answer: bytes) -> None:
    async with answering(answer) as url, engine.dispatcher(url=url) as dispatcher:
        for name, was_asked in (("one", True), ("two", False)):
            with pytest.raises(DispatcherUnavailableError) as caught:
                await dispatcher.dispatch(make_run(name))
            assert caught.value.was_asked is was_asked


async def test_a_token_is_not_led_elsewhere(engine: Engine) -> None:
    there = f"Location: {engine.address}/runs\r\nContent-Length: 0\r\n\r\n".encode()
    for status in (b"301 Moved", b"303 See Other", b"307 Temporary", b"308 Permanent"):
        async with answering(b"HTTP/1.1 " + status + b"\r\n" + there) as url, engine.dispatcher(url=url) as dispatcher:
            with pytest.raises(DispatcherUnavailableError):
                await dispatcher.dispatch(make_run())
    assert await engine.requests() == []


async def test_an_engine_that_is_back_gets_what_it_missed(engine: Engine) -> None:
    run = make_run()
    await engine.tell("misbehave", [503])
    async with engine.dispatcher() as dispatcher:
        with anyio.fail_after(20):
            while not await engine.requests():
                try:
                    await dispatcher.dispatch(run)
                except DispatcherUnavailableError:
                    await anyio.sleep(0.05)
        await dispatcher.dispatch(make_run("other"))


async def test_an_engine_that_is_not_there_is_told_without_secrets(
    engine: Engine, caplog: pytest.LogCaptureFixture, unused_port: int
) -> None:
    url = f"http://user:hunter2@127.0.0.1:{unused_port}/?key=hunter2"
    with caplog.at_level(logging.DEBUG, "sessions"):
        async with engine.dispatcher(url=url) as dispatcher:
            with pytest.raises(DispatcherUnavailableError) as caught:
                await dispatcher.dispatch(make_run())
    (line,) = caplog.records
    assert (line.message, line.__dict__["reason"]) == ("engine gave no answer", "ClientConnectorError")
    assert "hunter2" not in f"{caught.value} {caught.value!r} {line.__dict__}"


@pytest.fixture
async def unused_port() -> int:
    """A port on which nobody listens."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port: int = listener.extra(anyio.abc.SocketAttribute.local_port)
        return port


# --- what sessions doctor says ---


@pytest.mark.parametrize(
    ("settings", "check", "words"),
    [
        ({}, "setting", "webhook_url (SESSIONS_WEBHOOK_URL) must be set: the dispatcher webhook needs it"),
        ({"webhook_url": "nowhere", "webhook_secret": SECRET}, "setting", "webhook_url (SESSIONS_WEBHOOK_URL) must be"),
        (
            {"webhook_url": "http://x", "webhook_secret": "hunter2"},
            "setting",
            "(SESSIONS_WEBHOOK_SECRET) must be whsec_",
        ),
        ({"webhook_url": "http://a:hunter2@127.0.0.1:1", "webhook_secret": SECRET}, "reachable", "connection refused"),
    ],
)
async def test_what_is_wrong_with_an_engine_is_said_without_secrets(
    settings: dict[str, Any], check: str, words: str
) -> None:
    findings = await diagnose(Backends(profile="memory", dispatcher="webhook", **settings))
    (finding,) = [finding for finding in findings if finding.system == "engine"]
    assert (finding.health, finding.check) == (Health.ERROR, check)
    assert words in finding.message
    assert "hunter2" not in finding.message


async def test_an_engine_that_is_there_is_well(engine: Engine) -> None:
    backends = Backends(profile="memory", dispatcher="webhook", webhook_url=engine.address, webhook_secret=SECRET)
    findings = await diagnose(backends)
    assert [finding.health for finding in findings if finding.system == "engine"] == [Health.OK]
    assert await engine.requests() == []


@pytest.mark.parametrize(
    ("url", "is_readable"),
    [
        ("http://engine.example/runs", True),
        ("http://10.0.0.7/runs", True),
        ("http://localhost.example/runs", True),
        ("https://engine.example/runs", False),
        ("http://127.0.0.1:9000/runs", False),
        ("http://[::1]/runs", False),
        ("http://localhost/runs", False),
        ("http://engine.localhost/runs", False),
    ],
)
def test_what_leaves_the_machine_without_tls_can_be_read(url: str, is_readable: bool) -> None:
    assert WebhookConfig(url=url, secrets=SECRET).is_readable_on_its_way is is_readable


async def test_an_engine_whose_tokens_can_be_read_on_their_way_is_warned_of(engine: Engine) -> None:
    url = engine.address.replace("127.0.0.1", "0.0.0.0")  # leads here, but no rule can know that
    findings = await diagnose(Backends(profile="memory", dispatcher="webhook", webhook_url=url, webhook_secret=SECRET))
    (warned,) = [finding for finding in findings if finding.system == "engine" and finding.health is Health.WARNING]
    assert (warned.check, "use https" in warned.message) == ("encryption", True)


# --- pauses ---


def test_pauses_double_up_to_a_limit_and_a_success_ends_them() -> None:
    rests, run = Rests(), RunId("run_a")
    pauses, now = [], 0.0
    for _ in range(8):
        rests.run_refused(run, now)
        began = now
        while not rests.may_try(run, now, 5):
            now += 0.25
        pauses.append(now - began)
    assert pauses[0] <= 1.5
    assert 22 <= pauses[-1] <= 38
    rests.succeeded(run)
    rests.run_refused(run, now)
    assert rests.may_try(run, now + 1.5, 5)


def test_after_a_failure_of_the_engine_one_call_at_a_time_tries_it_and_another_runs_first() -> None:
    rests, one, two, three = Rests(), RunId("run_1"), RunId("run_2"), RunId("run_3")
    rests.engine_failed(one, 0.0)
    assert not rests.may_try(two, 0.5, 5)
    assert not rests.may_try(one, 1.3, 5), "perhaps it is this one that the engine cannot bear"
    assert rests.may_try(two, 1.3, 5)
    assert not rests.may_try(three, 1.3, 5)
    rests.succeeded(two)
    assert rests.may_try(three, 1.4, 5)
