"""How much is measured."""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen(kw_only=True)
class Scale:
    """Bounds of everything that is repeated.

    Attributes:
        rounds: How often each measurement is repeated. Many short ones: what is compared then happens close together.
        alone_seconds: How long one writer writes in a round.
        crowd_seconds: How long many writers write in a round.
        warm_up_seconds: How long they do before that counts.
        old_records: Records of the old channel.
        samples: How often each request to the young and the old channel is sent in a round.
    """

    rounds: int
    alone_seconds: float
    crowd_seconds: float
    warm_up_seconds: float
    old_records: int
    samples: int


FULL: Final = Scale(
    rounds=15,
    alone_seconds=0.4,
    crowd_seconds=0.6,
    warm_up_seconds=0.1,
    old_records=1_000_000,
    samples=40,
)
SHORT: Final = Scale(
    rounds=3,
    alone_seconds=0.2,
    crowd_seconds=0.4,
    warm_up_seconds=0.1,
    old_records=50_000,
    samples=20,
)
