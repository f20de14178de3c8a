"""How a session starts its runs, and the payloads that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import attrs

from sessions_core.domain.ids import RunId, SessionId
from sessions_core.domain.json_values import as_list, as_object, check_json, check_text
from sessions_core.domain.waitpoint import parse_duration
from sessions_core.errors import InvalidError

MACHINES: Final = frozenset({"micro", "small-1x", "small-2x", "medium-1x", "medium-2x", "large-1x", "large-2x"})
MAX_TAGS: Final = 10
MAX_TAG_LENGTH: Final = 128
MAX_DURATION_SECONDS: Final = 365 * 86_400
DEFAULT_MAX_ATTEMPTS: Final = 3
DEFAULT_IDLE_TIMEOUT_SECONDS: Final = 30
FIRST_RUN_ONLY: Final = frozenset({"message", "messages", "trigger"})
"""Payload members that a run replacing another one must not see again."""


def check_tags(tags: object, *, field: str) -> tuple[str, ...]:
    """Check a list of tags: at most 10, each a text of at most 128 characters.

    Raises:
        InvalidError: Names the first wrong tag.
    """
    items = as_list(tags)
    if items is None:
        raise InvalidError(field, "must be a list of strings")
    if len(items) > MAX_TAGS:
        raise InvalidError(field, f"must have at most {MAX_TAGS} items")
    return tuple(_text(tag, f"{field}[{i}]", MAX_TAG_LENGTH) for i, tag in enumerate(items))


def _text(value: object, field: str, longest: int | None = None) -> str:
    if not isinstance(value, str):
        raise InvalidError(field, "must be a string")
    if longest is not None and len(value) > longest:
        raise InvalidError(field, f"must have at most {longest} characters")
    check_text(value, field=field)
    return value


def _whole(value: object, field: str, least: int, most: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidError(field, "must be a whole number")
    if value < least or (most is not None and value > most):
        raise InvalidError(field, f"must be {least} to {most}" if most is not None else f"must be at least {least}")


def _whole_between(least: int, most: int | None = None) -> Callable[[object, str], None]:
    return lambda value, field: _whole(value, field, least, most)


def _check_tags(value: object, field: str) -> None:
    check_tags(value, field=field)


def _check_queue(value: object, field: str) -> None:
    _text(value, field, MAX_TAG_LENGTH)


def _check_machine(value: object, field: str) -> None:
    if not isinstance(value, str) or value not in MACHINES:
        raise InvalidError(field, f"must be one of {', '.join(sorted(MACHINES))}")


def _check_ttl(value: object, field: str) -> None:
    if isinstance(value, str):
        _text(value, field, MAX_TAG_LENGTH)
    else:
        _whole(value, field, 1)


_RULES: Final[Mapping[str, Callable[[object, str], object]]] = {
    "machine": _check_machine,
    "queue": _check_queue,
    "concurrencyKey": _text,
    "tags": _check_tags,
    "maxAttempts": _whole_between(1, 10),
    "maxDuration": _whole_between(1, MAX_DURATION_SECONDS),
    "lockToVersion": _text,
    "region": _text,
    "idleTimeoutInSeconds": _whole_between(1, 3600),
    "ttl": _check_ttl,
}


def _minimal() -> Mapping[str, Any]:
    return {"basePayload": {}}


@attrs.frozen
class TriggerConfig:
    """Stored whole as the caller gave it; the members this library knows are checked.

    Attributes:
        members: The JSON object. ``basePayload`` is always there and is an object; nothing else is needed.
    """

    members: Mapping[str, Any] = attrs.field(factory=_minimal)

    def __attrs_post_init__(self) -> None:
        field = "triggerConfig"
        if as_object(self.members) is None:
            raise InvalidError(field, "must be an object")
        if as_object(self.members.get("basePayload")) is None:
            raise InvalidError(f"{field}.basePayload", "must be an object")
        check_json(self.members, field=field)
        for name, check in _RULES.items():
            if self.members.get(name) is not None:
                check(self.members[name], f"{field}.{name}")

    @property
    def base_payload(self) -> Mapping[str, Any]:
        """What every run's payload starts from."""
        base: Mapping[str, Any] = self.members["basePayload"]
        return base

    @property
    def max_attempts(self) -> int:
        """How many runs may fail at one input before it is given up."""
        return self.members.get("maxAttempts") or DEFAULT_MAX_ATTEMPTS

    @property
    def ttl(self) -> timedelta | None:
        """How long a run may wait for a worker; None if that is not said, or cannot be read."""
        said = self.members.get("ttl")
        if isinstance(said, int):
            return timedelta(seconds=min(said, MAX_DURATION_SECONDS))
        return parse_duration(said or "")

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the runs (not of the session)."""
        return tuple(self.members.get("tags") or ())


def build_payload(session_id: SessionId, config: TriggerConfig, *, previous_run_id: RunId | None) -> dict[str, Any]:
    """Build a run's payload: shallow layers, later ones win.

    Args:
        session_id: Always put in as ``sessionId``.
        config: Gives ``basePayload`` and ``idleTimeoutInSeconds``.
        previous_run_id: The run that this one replaces. If given, the members that only a first run may see are
            left out and ``continuation`` and ``previousRunId`` are put in.
    """
    payload = dict(config.base_payload)
    idle = config.members.get("idleTimeoutInSeconds")
    if idle is not None:
        payload["idleTimeoutInSeconds"] = idle
    payload["sessionId"] = session_id
    if previous_run_id is not None:
        payload = {name: value for name, value in payload.items() if name not in FIRST_RUN_ONLY}
        payload["continuation"] = True
        payload["previousRunId"] = previous_run_id
    return payload
