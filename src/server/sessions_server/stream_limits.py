"""How many subscriptions and other long answers may be open at a time.

They cost this process memory and a connection each, so it counts its own, whatever other processes have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import EnvironmentId
from sessions_server.limit_settings import LimitSettings
from sessions_server.metrics import Metrics
from sessions_server.problems import TooManyStreamsError


@attrs.frozen
class Holder:
    """Whom streams are counted for.

    Attributes:
        kind: Of the limit, such as ``session``.
        names: Which one of this kind.
    """

    kind: str
    names: tuple[str, ...]


@attrs.define(eq=False)
class StreamLimits:
    """Counts open streams. Nothing is kept of who has none."""

    _settings: LimitSettings
    _metrics: Metrics
    _open: dict[Holder, int] = attrs.field(init=False, factory=dict)

    def __len__(self) -> int:
        """Return for how many holders there are streams."""
        return len(self._open)

    @contextmanager
    def held(self, environment_id: EnvironmentId, token: str | None, channel: Channel | None = None) -> Iterator[None]:
        """Count a stream as open inside the block, however that ends.

        Args:
            environment_id: Whose it is.
            token: Hash of the public token that was shown, if one was.
            channel: What it follows or writes, if it is about one.

        Raises:
            TooManyStreamsError: There are too many already; the block is not run.
        """
        limits = self._limits_of(environment_id, token, channel)
        for holder, most in limits.items():
            self._check(holder, most)
        for holder in limits:
            self._open[holder] = self._open.get(holder, 0) + 1
        try:
            yield
        finally:
            for holder in limits:
                self._leave(holder)

    def _limits_of(self, environment_id: str, token: str | None, channel: Channel | None) -> dict[Holder, int]:
        """Return how many each holder may have; those without a limit are left out."""
        settings = self._settings
        limits = {
            Holder("process", ()): settings.streams,
            Holder("environment", (environment_id,)): settings.streams_per_environment,
        }
        if channel is not None:
            limits[Holder("session", (environment_id, channel.key))] = settings.streams_per_session
        if token is not None:
            limits[Holder("token", (environment_id, token))] = settings.streams_per_token
        return {holder: most for holder, most in limits.items() if most}

    def _check(self, holder: Holder, most: int) -> None:
        if self._open.get(holder, 0) >= most:
            self._metrics.refuse(f"{holder.kind}_streams")
            raise TooManyStreamsError(holder.kind, most)

    def _leave(self, holder: Holder) -> None:
        left = self._open[holder] - 1
        if left:
            self._open[holder] = left
        else:
            del self._open[holder]
