"""Port: credentials for writing one channel without us."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Protocol

import attrs

from sessions_core.domain.channel import Channel
from sessions_core.domain.direct import Tenure


@attrs.frozen(kw_only=True)
class WriteCredentials:
    """What a direct writer needs. The token is a secret."""

    token: str = attrs.field(repr=False)
    basin: str
    stream: str
    endpoint: str
    flush_interval_ms: int = 100
    max_retries: int = 10


class DirectWrites(Protocol):
    """Issues credentials that allow exactly what their holder may do, on that one channel, for a short time."""

    __slots__ = ()

    @property
    @abstractmethod
    def is_scoped(self) -> bool:
        """Whether tokens are real and limited to one channel; False for a log without access control."""

    @abstractmethod
    async def issue(self, channel: Channel, *, tenure: Tenure, ends_at: datetime | None = None) -> WriteCredentials:
        """Return credentials for appending to *channel*, and for trimming it if it is ``out``.

        They work no longer than until *ends_at*, when what they were asked for with ends; None sets no such end. A log that
        checks credentials itself may let them work after *tenure*; where we check them, those for ``out`` do not.
        """
