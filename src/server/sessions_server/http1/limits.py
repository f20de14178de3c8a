"""What one HTTP/1.1 connection may cost. Each is a setting, which docs/reference/http.md explains."""

from __future__ import annotations

import attrs

from sessions_server.connections.settings import ConnectionSettings


@attrs.frozen(kw_only=True)
class Http1Limits:
    """Times in seconds, sizes in bytes.

    Attributes:
        url: Longest path with its query string.
        headers: How many of them a request may have.
        header_bytes: The names and values of all of them.
        head: How long a request's head may take once it has begun.
        idle: How long a connection without requests stays open.
        slow_write: After this long without taking anything of its answer a client is cut off.
        age: After this long a connection takes no further request.
    """

    url: int
    headers: int
    header_bytes: int
    head: float
    idle: float
    slow_write: float
    age: float

    @classmethod
    def of(cls, config: ConnectionSettings) -> Http1Limits:
        """Return what *config* sets."""
        return cls(
            url=config.max_url,
            headers=config.max_headers,
            header_bytes=config.max_header_bytes,
            head=config.header_timeout.total_seconds(),
            idle=config.idle_timeout.total_seconds(),
            slow_write=config.slow_write.total_seconds(),
            age=config.connection_age.total_seconds(),
        )

    @property
    def field(self) -> int:
        """What the parser is told to be the longest header: never the limit of the URL, so that its errors tell which it was."""
        return max(self.header_bytes, self.url + 1)
