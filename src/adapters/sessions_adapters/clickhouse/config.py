"""Options of the ClickHouse adapter."""

from __future__ import annotations

from datetime import timedelta

import attrs

from sessions_adapters.shared.urls import url_of

SCHEMES = ("http://", "https://", "chdb:")
_POSITIVE = attrs.validators.gt(timedelta())


@attrs.frozen(kw_only=True)
class ClickHouseConfig:
    """Where ClickHouse is, and how long it is waited for.

    Attributes:
        url: ``http://user:password@host:8123`` or ``https://…``; ``chdb:///a/folder`` runs the engine in this process.
        database: The database that has the table ``sessions_v1``; :func:`~sessions_adapters.clickhouse.migrate` makes it.
        workers: How many statements run at once at most; each needs a thread and a connection.
        timeout: How long one call may take in all, waiting for a free thread included. ClickHouse stops a statement that
            has run for this long, too.
        keep_alive: How long a connection that is not used stays open: None for as long as the server likes, nothing to close
            it after each statement.

    Raises:
        InvalidError: The URL is of no such kind, or cannot be read.
    """

    url: str = attrs.field(repr=False, validator=url_of("ClickHouse", *SCHEMES))
    database: str = attrs.field(default="sessions", validator=attrs.validators.matches_re(r"[A-Za-z_][A-Za-z0-9_]*"))
    workers: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    timeout: timedelta = attrs.field(default=timedelta(seconds=10), validator=_POSITIVE)
    keep_alive: timedelta | None = None
