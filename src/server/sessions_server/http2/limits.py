"""What one HTTP/2 connection may cost. docs/reference/http.md lists the numbers."""

from __future__ import annotations

import attrs

from sessions_server.connections.settings import ConnectionSettings


@attrs.frozen(kw_only=True)
class Http2Limits:
    """Times in seconds, sizes in bytes.

    Attributes:
        headers: How long the first bytes may leave it open which protocol they are; how long the settings after the preface may
            take, and the rest of a header block that has begun.
        quiet: After this long without a word a client is asked whether it is still there.
        pong: How long it may take to say so.
        idle: How long a connection without requests stays open, also one that has not said anything yet.
        age: After about this long a connection takes no further request.
        slow_write: How long an answer waits for a client that makes no room for it.
        streams: Requests at a time.
        frame: Longest frame; also the protocol's own default.
        url: Longest path with its query string.
        header_count: How many headers a request may have.
        header_list: All headers of one request, counted as the protocol does: 32 more for each. Half as many again are not even read.
        stream_window: How much of one body may come before it is read. Not less than the protocol's default, which clients take
            for granted until they know better.
        window: How much of all bodies may.
        backlog: How much may wait to be sent to a client that does not read.
    """

    headers: float = 10.0
    quiet: float = 30.0
    pong: float = 20.0
    idle: float = 75.0
    age: float = 3600.0
    slow_write: float = 30.0
    streams: int = 256
    frame: int = 16_384
    url: int = 8192
    header_count: int = 100
    header_list: int = 16_384
    stream_window: int = attrs.field(default=262_144, validator=attrs.validators.ge(65_535))
    window: int = 1_048_576
    backlog: int = 1_048_576

    @classmethod
    def of(cls, config: ConnectionSettings) -> Http2Limits:
        """Return what *config* sets, which holds for both versions of HTTP."""
        return cls(
            headers=config.header_timeout.total_seconds(),
            idle=config.idle_timeout.total_seconds(),
            age=config.connection_age.total_seconds(),
            slow_write=config.slow_write.total_seconds(),
            url=config.max_url,
            header_count=config.max_headers,
            header_list=config.max_header_bytes,
        )

    @property
    def longest_head(self) -> int:
        """How much of a request's headers is read at all, packed and unpacked."""
        return self.header_list * 3 // 2
