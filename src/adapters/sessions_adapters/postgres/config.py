"""Options of the Postgres adapter."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

import attrs

from sessions_adapters.shared.urls import url_of
from sessions_core.errors import InvalidError

SCHEMES: Final = ("postgresql://", "postgres://")
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")


def _schema_name(_: object, __: object, value: str) -> None:
    if not _SCHEMA.fullmatch(value):
        raise InvalidError("schema", "must be 1 to 48 characters a-z, 0-9 or _, and not begin with a digit")


def _more_than_nothing(_: object, attribute: attrs.Attribute[Any], value: timedelta) -> None:
    if value <= timedelta():
        raise InvalidError(attribute.name, "must be more than 0")


@attrs.frozen(kw_only=True)
class PostgresConfig:
    """Where the data is, and how patient and how greedy this process is.

    Attributes:
        url: ``postgresql://user:password@host:port/database``. A direct connection, or a pooler in session mode:
            notifications and locks belong to a connection.
        schema: Everything lies in this schema of the database.
        lists: Whether lists of sessions are read from here; then two more indexes are kept.
        connections: How many connections the pool opens at most. Beside it there is one that appends, one that listens,
            and one for each name that this process leads or would like to.
        connect_timeout: How long a connection may take to open, and a caller waits for a free one of the pool.
        statement_timeout: After this the server stops a statement. Two seconds later nothing is expected of it any more.
        lock_timeout: So long an append waits for a channel that somebody has locked. The others in its group wait with it.
        part_window_records: A part id is remembered while its record is among this many latest ones of its channel …
        part_window: … or younger than this.
        group_size: How many appends share a transaction at most.
        group_bytes: About how many bytes of bodies share a transaction at most.
        notify_interval: News for other processes are gathered for so long, except those after a pause.
        poll_interval: So often this process looks for news that it was not told.
        leader_check: So often a leader makes sure that its connection lives, and others try to lead.
        buffered_bytes: How much a slow follower may have waiting before it reads from the database instead.

    Raises:
        InvalidError: The URL is of no such kind, or cannot be read; or one of the others means nothing.
    """

    url: str = attrs.field(repr=False, validator=url_of("Postgres", *SCHEMES))
    schema: str = attrs.field(default="sessions", validator=_schema_name)
    lists: bool = True
    connections: int = attrs.field(default=10, validator=attrs.validators.ge(2))
    connect_timeout: timedelta = attrs.field(default=timedelta(seconds=5), validator=_more_than_nothing)
    statement_timeout: timedelta = attrs.field(default=timedelta(seconds=10), validator=_more_than_nothing)
    lock_timeout: timedelta = attrs.field(default=timedelta(seconds=2), validator=_more_than_nothing)
    part_window_records: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    part_window: timedelta = timedelta(minutes=15)
    group_size: int = attrs.field(default=256, validator=attrs.validators.ge(1))
    group_bytes: int = attrs.field(default=4_194_304, validator=attrs.validators.ge(1))
    notify_interval: timedelta = attrs.field(default=timedelta(milliseconds=5), validator=_more_than_nothing)
    poll_interval: timedelta = attrs.field(default=timedelta(seconds=1), validator=_more_than_nothing)
    leader_check: timedelta = attrs.field(default=timedelta(seconds=1), validator=_more_than_nothing)
    buffered_bytes: int = attrs.field(default=1_048_576, validator=attrs.validators.ge(1))
