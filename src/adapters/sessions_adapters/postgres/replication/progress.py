"""How far the consumer is, and what the server may be told about it."""

from __future__ import annotations

import attrs

from sessions_core.errors import InvalidError


@attrs.define(eq=False)
class Progress:
    """Positions in the server's log, none of which ever falls.

    Attributes:
        handed: Of the last batch that was handed out.
        acknowledged: The consumer has written everything up to here.
        passed: Up to here there is nothing that has not been handed out.
    """

    handed: int = 0
    acknowledged: int = 0
    passed: int = 0

    def hand(self, position: int) -> None:
        """Take note that a batch with *position* is handed out."""
        self.handed = max(self.handed, position)

    def acknowledge(self, position: int) -> None:
        """Take note that all up to *position* is written."""
        if position > self.handed:
            raise InvalidError("position", "is higher than that of any batch of this stream")
        self.acknowledged = max(self.acknowledged, position)

    def skip_to(self, position: int) -> None:
        """Take note that nothing comes between what was handed out and *position*."""
        self.passed = max(self.passed, position)

    @property
    def safe(self) -> int:
        """Up to here the server may forget its log.

        Where nothing is outstanding, what concerns nobody counts too: or else a table that is written without end would keep
        the log growing while no session changes.
        """
        if self.acknowledged < self.handed:
            return self.acknowledged
        return max(self.acknowledged, self.passed)
