"""Options of the Procrastinate adapter."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

import attrs

from sessions_core.errors import InvalidError

_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_DIGITS: Final = re.compile(r"\d+")


def _schema_name(_: object, __: object, value: str) -> None:
    if not _SCHEMA.fullmatch(value):
        raise InvalidError("schema", "must be 1 to 63 characters a-z, 0-9 or _, and not begin with a digit")


def _more_than_nothing(_: object, attribute: attrs.Attribute[Any], value: timedelta) -> None:
    if value <= timedelta():
        raise InvalidError(attribute.name, "must be more than 0")


def _at_least_one(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if value < 1:
        raise InvalidError(attribute.name, "must be at least 1")


@attrs.frozen(kw_only=True)
class ProcrastinateConfig:
    """Where the jobs are.

    Attributes:
        url: ``postgresql://user:password@host:port/database``. A direct connection, or a pooler in session mode.
        schema: Procrastinate's tables lie in this schema of the database, which has nothing else.
        connections: How many connections are opened at most. A worker has one more, which listens.
        timeout: How long a connection may take to open, and a caller waits for a free one.
    """

    url: str = attrs.field(repr=False)
    schema: str = attrs.field(default="sessions_procrastinate", validator=_schema_name)
    connections: int = attrs.field(default=4, validator=_at_least_one)
    timeout: timedelta = attrs.field(default=timedelta(seconds=5), validator=_more_than_nothing)


@attrs.frozen(kw_only=True)
class WorkerConfig:
    """Which runs a worker takes, and how many.

    Attributes:
        tasks: Only runs of these; None takes all.
        queues: Only runs whose ``queue`` is one of these; None takes all.
        version: Of what the worker carries out. A run with ``lockToVersion`` goes only to a worker of that version; any other
            one to the newest version that has a living worker for it.
        concurrency: How many runs are carried out at once.
        stall: A worker without a sign of life for so long is dead: what it took and did not begin is given to others.
        poll: So often a worker looks for what it was not told.
    """

    tasks: tuple[str, ...] | None = None
    queues: tuple[str, ...] | None = None
    version: str | None = None
    concurrency: int = attrs.field(default=1000, validator=_at_least_one)
    stall: timedelta = attrs.field(default=timedelta(seconds=15), validator=_more_than_nothing)
    poll: timedelta = attrs.field(default=timedelta(seconds=1), validator=_more_than_nothing)

    @property
    def rank(self) -> str:
        """A text that sorts, byte by byte, as versions do: by the numbers in them. No version comes before all others."""
        return _DIGITS.sub(lambda number: number[0].lstrip("0").zfill(18), self.version or "")
