"""What one client may cost before anybody knows who it is: the settings, and why their defaults are what they are.

Sizes are what proxies in front allow, too. A connection is old after an hour because that is how long session tokens live, so
the subscriptions of most readers end by then in any case; a server that is new behind a load balancer has its share of the readers
an hour later. An idle connection stays longer than the minute after which most load balancers close theirs, so that none of
them sends a request on a connection that is just being closed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs

from sessions_core.errors import InvalidError


def positive(_: object, attribute: attrs.Attribute[timedelta], value: timedelta) -> None:
    """Refuse a time that is none."""
    if value <= timedelta(0):
        raise InvalidError(attribute.name, "must be more than 0 seconds")


def one_or_more(_: object, attribute: attrs.Attribute[Any], value: int | None) -> None:
    """Refuse a number that is none; None is left alone."""
    if value is not None and value < 1:
        raise InvalidError(attribute.name, "must be at least 1")


@attrs.frozen(kw_only=True)
class ConnectionSettings:
    """Limits of connections and requests. Each may be set as ``SESSIONS_<NAME>``, durations in seconds.

    Attributes:
        max_url: Longest path with its query string, in bytes.
        max_headers: How many headers a request may have.
        max_header_bytes: How long the names and values of all of them may be together.
        header_timeout: How long the head of a request may take to come.
        body_timeout: How long a body may take to come, and a second more for each 16 KiB of it.
        slow_write: After this long without taking anything of its answer a client is cut off.
        idle_timeout: How long a connection without requests stays open, also one that has not said anything yet.
        connection_age: After about this long a subscription ends cleanly, and a connection takes no further request.
        max_connections: How many connections this process takes before one without a request makes place for a new one; None
            for as many as it may open files, less 384 (or half of them, if that is more), and at most
            32 768.
    """

    max_url: int = attrs.field(default=8192, validator=one_or_more)
    max_headers: int = attrs.field(default=100, validator=one_or_more)
    max_header_bytes: int = attrs.field(default=16_384, validator=one_or_more)
    header_timeout: timedelta = attrs.field(default=timedelta(seconds=10), validator=positive)
    body_timeout: timedelta = attrs.field(default=timedelta(seconds=30), validator=positive)
    slow_write: timedelta = attrs.field(default=timedelta(seconds=30), validator=positive)
    idle_timeout: timedelta = attrs.field(default=timedelta(seconds=75), validator=positive)
    connection_age: timedelta = attrs.field(default=timedelta(hours=1), validator=positive)
    max_connections: int | None = attrs.field(default=None, validator=one_or_more)
