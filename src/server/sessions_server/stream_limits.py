"""How many subscriptions and other long answers may be open at a time.

They cost this process memory and a connection each, so it counts its own, whatever other processes have.
"""

from __future__ import annotations

from typing import Final

import attrs

from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import EnvironmentId
from sessions_server.limit_settings import LimitSettings
from sessions_server.metrics import Metrics
from sessions_server.problems import TooManyStreamsError

Holder = tuple[str, ...]
"""Whom streams are counted for: the kind of limit, such as ``session``, and which one of that kind."""
PROCESS: Final = "process"
ENVIRONMENT: Final = "environment"
SESSION: Final = "session"
TOKEN: Final = "token"  # noqa: S105 - a kind of limit


@attrs.define(eq=False)
class StreamLimits:
    """Counts open streams. Nothing is kept of who has none."""

    _settings: LimitSettings
    _metrics: Metrics
    _open: dict[Holder, int] = attrs.field(init=False, factory=dict)

    def __len__(self) -> int:
        """Return for how many holders there are streams."""
        return len(self._open)

    def held(self, environment_id: EnvironmentId, token: str | None, channel: Channel | None = None) -> Held:
        """Return a block inside which a stream counts as open, however that ends. It raises when it is entered.

        Args:
            environment_id: Whose it is.
            token: Hash of the public token that was shown, if one was.
            channel: What it follows or writes, if it is about one.

        Raises:
            TooManyStreamsError: There are too many already; the block is not run.
        """
        holders: list[Holder] = [(PROCESS,), (ENVIRONMENT, environment_id)]
        if channel is not None:
            holders.append((SESSION, environment_id, channel.key))
        if token is not None:
            holders.append((TOKEN, environment_id, token))
        return Held(self, tuple(holder for holder in holders if self._most(holder[0])))

    def enter(self, holders: tuple[Holder, ...]) -> None:
        """Count one more for each of *holders*, or for none.

        Raises:
            TooManyStreamsError: One of them has too many already.
        """
        for holder in holders:
            if self._open.get(holder, 0) >= (most := self._most(holder[0])):
                self._metrics.refuse(f"{holder[0]}_streams")
                raise TooManyStreamsError(holder[0], most)
        for holder in holders:
            self._open[holder] = self._open.get(holder, 0) + 1

    def leave(self, holders: tuple[Holder, ...]) -> None:
        """Count one less for each of *holders*."""
        for holder in holders:
            left = self._open[holder] - 1
            if left:
                self._open[holder] = left
            else:
                del self._open[holder]

    def _most(self, kind: str) -> int:
        """Return how many may be open; 0 is no limit."""
        settings = self._settings
        return {
            PROCESS: settings.streams,
            ENVIRONMENT: settings.streams_per_environment,
            SESSION: settings.streams_per_session,
            TOKEN: settings.streams_per_token,
        }[kind]


@attrs.define(eq=False)
class Held:
    """A block for one stream. A class and no generator: thousands are open at a time, and each would keep a frame."""

    _limits: StreamLimits
    _holders: tuple[Holder, ...]

    def __enter__(self) -> None:
        self._limits.enter(self._holders)

    def __exit__(self, *_: object) -> None:
        self._limits.leave(self._holders)
