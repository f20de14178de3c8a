"""What travels on ``in``: reading what clients send, and making what they send."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

import attrs

from sessions_core.domain.json_values import as_list, as_object

MESSAGE: Final = "message"
STOP: Final = "stop"
SUBMIT: Final = "submit-message"
REGENERATE: Final = "regenerate-message"
ACTION: Final = "action"
CLOSE: Final = "close"
ONLY_IN_PAYLOADS: Final = frozenset({"preload", "handover-prepare"})
"""Triggers of a run's first payload. On ``in`` nobody waits for an answer to them."""


@attrs.frozen
class Input:
    """A record of ``in`` as chat understands it: its ``kind`` and ``payload``."""

    kind: str
    payload: Mapping[str, Any]

    @classmethod
    def parse(cls, data: Any) -> Input | None:
        """Read a record's data; None if it is nothing that chat knows."""
        if isinstance(data, str):
            try:
                data = json.loads(data)
            except (ValueError, RecursionError):
                return None
        members = as_object(data)
        if members is None or not isinstance(members.get("kind"), str):
            return None
        return cls(members["kind"], as_object(members.get("payload")) or {})

    @property
    def trigger(self) -> str:
        """What the client wants: ``submit-message``, ``regenerate-message``, ``action`` or ``close``."""
        trigger = self.payload.get("trigger")
        return trigger if isinstance(trigger, str) else SUBMIT

    @property
    def wants_turn(self) -> bool:
        """Whether it has to be dealt with by a turn, or ends them."""
        return self.kind == MESSAGE and self.trigger not in ONLY_IN_PAYLOADS

    @property
    def user_message(self) -> Mapping[str, Any] | None:
        """What the user said, if this is a submit of that.

        A submit may also bring an assistant's message back, with the results of its tools; that is nobody's saying.
        """
        message = as_object(self.payload.get("message")) if self.kind == MESSAGE and self.trigger == SUBMIT else None
        return None if message is None or message.get("role", "user") != "user" else message


def text_of(message: Mapping[str, Any] | None) -> str:
    """Join the text parts of a UI message."""
    parts = [as_object(part) or {} for part in as_list((message or {}).get("parts")) or ()]
    texts = [part.get("text") for part in parts if part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def user_message(text: str, *, id: str | None = None, metadata: Any = None) -> dict[str, Any]:  # noqa: A002 - the wire's word
    """Return what goes on ``in`` when a user says *text*: a JSON object, as the official clients send it.

    Send ``json.dumps`` of it: as the body of ``POST .../in/append``, or with ``append_text(session, Io.IN, ...)``.

    Args:
        text: The one text part of the user's message.
        id: The UI message's id; a fresh random one if None.
        metadata: The client's data, which an agent finds in ``turn.metadata``; left out if None.
    """
    message = {"id": id or secrets.token_urlsafe(12), "role": "user", "parts": [{"type": "text", "text": text}]}
    return _message(SUBMIT, message=message, metadata=metadata)


def regenerate_message(message_id: str | None = None) -> dict[str, Any]:
    """Return what goes on ``in`` to have the last message answered again. See :func:`user_message`."""
    return _message(REGENERATE, messageId=message_id)


def action_message(action: Any, *, metadata: Any = None) -> dict[str, Any]:
    """Return what goes on ``in`` for an action of the client's own. See :func:`user_message`."""
    return _message(ACTION, action=action, metadata=metadata)


def close_message() -> dict[str, Any]:
    """Return what goes on ``in`` to let the run leave; the session stays open. See :func:`user_message`."""
    return _message(CLOSE)


def stop_message() -> dict[str, Any]:
    """Return what goes on ``in`` to end the turn that is running. See :func:`user_message`."""
    return {"kind": STOP}


def _message(trigger: str, **members: Any) -> dict[str, Any]:
    given = {name: value for name, value in members.items() if value is not None}
    return {"kind": MESSAGE, "payload": {"trigger": trigger, **given}}
