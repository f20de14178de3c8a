"""How many bytes of bodies and frames may be held at a time for requests that are not finished, by all of them together.

Each request has limits of its own, but there may be thousands of them: clients that take their time over a body, and bodies,
perhaps a thousand times as large as what was sent, that wait for a store. They cost this process memory, so it counts its own. A
small body that is there whole when it is read is not counted, and so never refused.
"""

from __future__ import annotations

from typing import Final, Self

import attrs

from sessions_core.domain.ids import EnvironmentId
from sessions_server.limits.holder_counts import ENVIRONMENT, PAGE, PROCESS, TOKEN, Holder, HolderCounts
from sessions_server.limits.settings import LimitSettings
from sessions_server.observability.metrics import Metrics
from sessions_server.problems import TooMuchUnfinishedError

REQUEST_BYTES: Final = 16_384
"""What a request that waits for its body takes itself, even if nothing has come of that."""
SMALL_BYTES: Final = 16_384
"""A body that is no longer than this counts no more once it is whole: its request takes about as much."""


@attrs.define(eq=False)
class UnfinishedBytes:
    """Counts bytes for this process, for environments and for tokens. Nothing is kept of who has none."""

    _settings: LimitSettings
    _metrics: Metrics
    _counts: HolderCounts = attrs.field(init=False)

    @_counts.default
    def _none(self) -> HolderCounts:
        settings = self._settings
        most = {
            PROCESS: settings.unfinished_bytes,
            ENVIRONMENT: settings.unfinished_bytes_per_environment,
            PAGE: settings.unfinished_bytes_per_environment,
            TOKEN: settings.unfinished_bytes_per_token,
        }
        return HolderCounts(most, self._refusal)

    def __len__(self) -> int:
        """Return for how many holders something is held."""
        return len(self._counts)

    @property
    def held(self) -> int:
        """How many bytes are held by all together; 0 if that has no limit."""
        return self._counts.get((PROCESS,))

    def share_of(self, environment_id: EnvironmentId, counted_as: str | None) -> Share:
        """Return the share of a request.

        Args:
            environment_id: Whose it is.
            counted_as: The name under which the token that was shown is counted; None if a key was.
        """
        holders: tuple[Holder, ...] = ((PROCESS,), (ENVIRONMENT, environment_id))
        return Share(self._counts, holders if counted_as is None else (*holders, (TOKEN, environment_id, counted_as)))

    def share_of_page(self) -> Share:
        """Return the share of a request that the chat page makes, where nobody shows a credential."""
        return Share(self._counts, ((PROCESS,), (PAGE,)))

    def _refusal(self, kind: str, most: int) -> TooMuchUnfinishedError:
        self._metrics.refuse(f"{kind}_bytes")
        return TooMuchUnfinishedError(kind, most)


@attrs.define(eq=False)
class Share:
    """What is held for one request. It is a block, too, at whose end nothing is. Most requests hold nothing."""

    _counts: HolderCounts
    _holders: tuple[Holder, ...]
    _size: int = attrs.field(init=False, default=0)

    def hold(self, size: int) -> None:
        """Say that *size* bytes are held now.

        Raises:
            TooMuchUnfinishedError: That is too much, with what is held for others; what was held before still counts.
        """
        if size and not self._size:
            self._holders = self._counts.limited(self._holders)
        if size > self._size:
            self._counts.add(self._holders, size - self._size)
        elif size < self._size:
            self._counts.remove(self._holders, self._size - size)
        self._size = size

    def keep(self, size: int) -> None:
        """Say that what is held now is whole, and *size* bytes long; it does not count if that is little.

        Raises:
            TooMuchUnfinishedError: That is too much, with what is held for others.
        """
        self.hold(size if size > SMALL_BYTES else 0)

    def release(self) -> None:
        """Say that nothing is held any more."""
        self.hold(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
