"""One body of each kind that works, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sessions_server.wire.attempts import AppendOut, CompleteAttempt, StartAttempt
from sessions_server.wire.requests import (
    CloseSession,
    CreatePublicToken,
    CreateSession,
    CreateWait,
    EndAndContinue,
    UpdateSession,
)
from sessions_server.wire.values import Wire

_TEXT: Final = {"type": "text-delta", "id": "t1", "delta": "Hello"}
_MESSAGE: Final = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}

MESSAGE: Final = {"kind": "message", "payload": {"trigger": "submit-message", "message": _MESSAGE}}
"""What a chat client appends to ``in``."""

EXAMPLES: Final[Mapping[type[Wire], Mapping[str, Any]]] = {
    CreateSession: {
        "type": "chat.agent",
        "externalId": "chat-1",
        "taskIdentifier": "echo",
        "triggerConfig": {"basePayload": {"chatId": "chat-1", "trigger": "preload"}, "tags": ["demo"]},
        "tags": ["demo"],
        "metadata": {"plan": "free"},
        "expiresAt": "2100-01-02T03:04:05Z",
    },
    UpdateSession: {"tags": ["demo", "seen"], "metadata": {"plan": "paid"}},
    CloseSession: {"reason": "done"},
    EndAndContinue: {"callingRunId": "run_1", "reason": "upgrade"},
    CreateWait: {"session": "chat-1", "io": "in", "timeout": "1h30m", "idempotencyKey": "step-1", "lastSeqNum": 0},
    CreatePublicToken: {"scopes": ["read:sessions:chat-1"], "expirationTime": "15m"},
    StartAttempt: {"attempt": 1},
    AppendOut: {"records": [{"data": _TEXT}], "turnComplete": {"lastSeqNum": 0}},
    CompleteAttempt: {"status": "COMPLETED_SUCCESSFULLY", "lastSeqNum": 0},
}
