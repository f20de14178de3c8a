"""Values for tests: everything that a test does not say has a plain default."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import anyio

from sessions_core.domain.channel import Channel, Headers, Io, NewRecord
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import (
    AddressingKey,
    EnvironmentId,
    ExternalId,
    OrganizationId,
    PartId,
    ProjectId,
    RunId,
    SessionId,
    WaitpointId,
)
from sessions_core.domain.run import REASON_CONTINUATION, RunRecord, first_run, next_run
from sessions_core.domain.session import Session
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.domain.waitpoint import Waitpoint

T = TypeVar("T")
Call = Callable[[], Awaitable[Any]]

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Where a ManualClock stands at first."""
SECOND: Final = timedelta(seconds=1)
MILLISECOND: Final = timedelta(milliseconds=1)


def make_environment(name: str = "env_a") -> Environment:
    return Environment(
        id=EnvironmentId(name),
        organization_id=OrganizationId(f"org_{name}"),
        project_id=ProjectId(f"proj_{name}"),
        type=EnvironmentType.DEVELOPMENT,
    )


ENV_A: Final = make_environment("env_a")
ENV_B: Final = make_environment("env_b")


def make_session(name: str = "one", *, external_id: str | None = None, at: datetime = START, **members: Any) -> Session:
    """Make a session ``session_<name>``."""
    defaults: dict[str, Any] = {
        "environment": ENV_A,
        "type": "chat",
        "task": "echo",
        "trigger_config": TriggerConfig({"basePayload": {}}),
        "created_at": at,
        "updated_at": at,
        "external_id": None if external_id is None else ExternalId(external_id),
    }
    return Session(id=SessionId(f"session_{name}"), **(defaults | members))


def initial(session: Session) -> RunRecord:
    """Make the run that *session* starts with."""
    return first_run(session, RunId(f"run_of_{session.id}"), session.created_at)


def following(session: Session, name: str = "next", **members: Any) -> RunRecord:
    """Make a run that claims *session* as it was read."""
    arguments: dict[str, Any] = {"reason": REASON_CONTINUATION, "now": session.created_at, "previous": None}
    return next_run(session, RunId(f"run_{name}_of_{session.id}"), **(arguments | members))


def make_channel(key: str = "key", *, env: str = "env_a", io: Io = Io.OUT, name: str | None = None) -> Channel:
    return Channel(EnvironmentId(env), AddressingKey(key), io, name)


def record(body: str | bytes = b"", part: str | None = None, headers: Headers = ()) -> NewRecord:
    data = body.encode() if isinstance(body, str) else body
    return NewRecord(data, headers, None if part is None else PartId(part))


def records(count: int, prefix: str = "record") -> list[NewRecord]:
    """Make *count* records that can be told apart and have no part ids."""
    return [record(f"{prefix} {number}") for number in range(count)]


def make_waitpoint(name: str = "one", *, channel: Channel | None = None, **members: Any) -> Waitpoint:
    return Waitpoint(
        id=WaitpointId(f"waitpoint_{name}"),
        run_id=RunId("run_one"),
        channel=channel or make_channel(io=Io.IN),
        **({"created_at": START} | members),
    )


async def at_once(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Make all *calls* in concurrent tasks; return their answers in the order of the calls."""
    answers: dict[int, T] = {}

    async def answer(number: int, call: Callable[[], Awaitable[T]]) -> None:
        answers[number] = await call()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number, call in enumerate(calls):
                tasks.start_soon(answer, number, call)
    return [answers[number] for number in range(len(calls))]
