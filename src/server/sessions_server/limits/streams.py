"""How many subscriptions and other long answers may be open at a time.

They cost this process memory and a connection each, so it counts its own, whatever other processes have.
"""

from __future__ import annotations

import attrs

from sessions_core.domain.channel import Channel
from sessions_core.domain.ids import EnvironmentId
from sessions_server.limits.holder_counts import ENVIRONMENT, PROCESS, SESSION, TOKEN, Holder, HolderCounts
from sessions_server.limits.settings import LimitSettings
from sessions_server.observability.metrics import Metrics
from sessions_server.problems import TooManyStreamsError


@attrs.define(eq=False)
class StreamLimits:
    """Counts open streams. Nothing is kept of who has none."""

    _settings: LimitSettings
    _metrics: Metrics
    _open: HolderCounts = attrs.field(init=False)

    @_open.default
    def _none(self) -> HolderCounts:
        settings = self._settings
        most = {
            PROCESS: settings.streams,
            ENVIRONMENT: settings.streams_per_environment,
            SESSION: settings.streams_per_session,
            TOKEN: settings.streams_per_token,
        }
        return HolderCounts(most, self._refusal)

    def __len__(self) -> int:
        """Return for how many holders there are streams."""
        return len(self._open)

    def held(self, environment_id: EnvironmentId, counted_as: str | None, channel: Channel | None = None) -> Held:
        """Return a block inside which a stream counts as open, however that ends. It raises when it is entered.

        Args:
            environment_id: Whose it is.
            counted_as: The name under which the token that was shown is counted; None if a key was.
            channel: What it follows or writes, if it is about one.

        Raises:
            TooManyStreamsError: There are too many already; the block is not run.
        """
        holders: list[Holder] = [(PROCESS,), (ENVIRONMENT, environment_id)]
        if channel is not None:
            holders.append((SESSION, environment_id, channel.key))
        if counted_as is not None:
            holders.append((TOKEN, environment_id, counted_as))
        return Held(self._open, self._open.limited(holders))

    def _refusal(self, kind: str, most: int) -> TooManyStreamsError:
        self._metrics.refuse(f"{kind}_streams")
        return TooManyStreamsError(kind, most)


@attrs.define(eq=False)
class Held:
    """A block for one stream. A class and no generator: thousands are open at a time, and each would keep a frame."""

    _open: HolderCounts
    _holders: tuple[Holder, ...]

    def __enter__(self) -> None:
        self._open.add(self._holders)

    def __exit__(self, *_: object) -> None:
        self._open.remove(self._holders)
