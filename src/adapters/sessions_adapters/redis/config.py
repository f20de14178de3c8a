"""Options of the Redis adapters."""

from __future__ import annotations

from datetime import timedelta

import attrs

from sessions_adapters.shared.urls import url_of

SCHEMES = ("redis://", "rediss://", "unix://")


@attrs.frozen(kw_only=True)
class RedisConfig:
    """Where Redis is, and how long it is waited for.

    Attributes:
        url: Begins with ``redis://``, ``rediss://`` (TLS) or ``unix://``, with password and database number.
        prefix: How keys begin. Different systems on one Redis need different prefixes.
        timeout: How long one call may take in all, connecting and waiting for a free connection included. An append waits
            that long at most for a Redis that does not answer.
        max_connections: How many connections are open at most; further calls wait for one.

    Raises:
        InvalidError: The URL is of no such kind, or cannot be read.
    """

    url: str = attrs.field(repr=False, validator=url_of("Redis", *SCHEMES))
    prefix: str = "sessions:"
    timeout: timedelta = attrs.field(default=timedelta(milliseconds=500), validator=attrs.validators.gt(timedelta()))
    max_connections: int = attrs.field(default=32, validator=attrs.validators.ge(1))
