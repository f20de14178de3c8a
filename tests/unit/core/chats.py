"""An environment, chats in it, and what is said in them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sessions_core import chat
from sessions_core.domain.channel import Envelope, Io, Record
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import EnvironmentId, ExternalId, OrganizationId, PartId, ProjectId
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.facade import Sessions
from sessions_core.services.session_service import NewSession

HOME = Environment(
    id=EnvironmentId("env_home"),
    organization_id=OrganizationId("org_1"),
    project_id=ProjectId("proj_1"),
    type=EnvironmentType.DEVELOPMENT,
)
NAME = ExternalId("chat")


def spec(task: str = "echo", *, name: str | None = NAME, idle: float = 3, **config: Any) -> NewSession:
    """Return what creates a session whose runs leave after *idle* seconds."""
    members = {"basePayload": {"idleTimeoutInSeconds": idle}, **config}
    return NewSession(
        type="chat.agent",
        task=task,
        trigger_config=TriggerConfig(members),
        external_id=None if name is None else ExternalId(name),
    )


def said(text: str, trigger: str = "submit-message", **payload: Any) -> str:
    """Return the text of a chat message as clients send it."""
    message = {"id": text, "role": "user", "parts": [{"type": "text", "text": text}]}
    given = {"message": message} if trigger == "submit-message" else {}
    return json.dumps({"kind": "message", "payload": {**given, "chatId": NAME, "trigger": trigger, **payload}})


STOP = json.dumps({"kind": "stop"})


async def say(sessions: Sessions, text: str, *, part: str | None = None, name: str = NAME) -> int:
    """Append a chat message the way a server does, and return its seq."""
    session = await sessions.sessions.find_cached(HOME.id, name)
    assert session is not None
    part_id = PartId(part or text)
    return (await sessions.channels.append_text(session, Io.IN, said(text), part_id=part_id)).seq


def echo_agents(tasks: Mapping[str, Callable[[chat.Run], Awaitable[None]]] | None = None) -> chat.Agents:
    """Return agents with the task ``echo``, which says in its answer who wrote it, and others."""
    agents = chat.Agents()

    @agents.task("echo")
    async def echo(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.data("by", {"epoch": run.record.epoch, "run": run.id, "seq": turn.seq})
                await turn.text(f"you said: {turn.text_input}")

    for name, task in (tasks or {}).items():
        agents.task(name)(task)
    return agents


def data_of(record: Record) -> Any:
    """Return the data of a data record."""
    envelope = Envelope.parse(record.body)
    assert envelope is not None
    return envelope.data
