"""What anybody may ask of a server, in one place: requests, guesses at credentials, streams, and room for bodies."""

from __future__ import annotations

from typing import Self

import attrs

from sessions_core.facade import Sessions
from sessions_core.services.tolerant_limiter import TolerantRateLimiter
from sessions_server.limits.guesses import Guesses
from sessions_server.limits.permits import Permits
from sessions_server.limits.settings import LimitSettings
from sessions_server.limits.streams import StreamLimits
from sessions_server.limits.unfinished_bytes import UnfinishedBytes
from sessions_server.observability.metrics import Metrics


@attrs.frozen(kw_only=True, eq=False)
class Limits:
    """The limits of one server process."""

    permits: Permits
    guesses: Guesses
    streams: StreamLimits
    unfinished: UnfinishedBytes

    @classmethod
    def of(cls, settings: LimitSettings, sessions: Sessions, metrics: Metrics) -> Self:
        """Return what *settings* say, counted by the limiter of *sessions* as far as processes share it."""
        inner, clock, header = sessions.ports.rate_limiter, sessions.clock, settings.client_address_header
        limiter = None if inner is None else TolerantRateLimiter(inner, sessions.ports.observer)
        return cls(
            permits=Permits(settings=settings, limiter=limiter, clock=clock, metrics=metrics),
            guesses=Guesses(rate=settings.guess_rate, header=header and header.lower(), clock=clock, metrics=metrics),
            streams=StreamLimits(settings, metrics),
            unfinished=UnfinishedBytes(settings, metrics),
        )
