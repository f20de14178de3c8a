"""The one shape of every error."""

from __future__ import annotations

import json
from typing import Any, Final

from harness.in_process import RawAnswer

SHAPE: Final = {"ok", "error", "code", "field", "details", "closedReason"}


def check(answer: Any, status: int, field: str | None = None) -> None:
    """Check that *answer* is an error in that shape, with this status, about this member."""
    body = answer.json if isinstance(answer, RawAnswer) else answer.body
    assert answer.status == status, body
    assert {"error", "code"} <= body.keys() <= SHAPE
    assert isinstance(body["error"], str)
    assert body["error"]
    assert "Traceback" not in json.dumps(body)
    if field is not None:
        assert body["field"] == field, body
