"""How much is measured."""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen(kw_only=True)
class Scale:
    """Bounds of everything that is repeated.

    Attributes:
        rounds: How often each measurement is repeated; medians are taken over them.
        alone_seconds: How long one writer writes in a round.
        crowd_seconds: How long many writers write in a round.
        warm_up_seconds: How long they do before that counts.
        most_appends: How many appends the writers of one measurement send at most.
        old_records: Records of the old channel.
        samples: How often each request to the young and the old channel is sent in a round.
    """

    rounds: int
    alone_seconds: float
    crowd_seconds: float
    warm_up_seconds: float
    most_appends: int
    old_records: int
    samples: int


FULL: Final = Scale(
    rounds=7,
    alone_seconds=1.0,
    crowd_seconds=1.2,
    warm_up_seconds=0.3,
    most_appends=50_000,
    old_records=1_000_000,
    samples=60,
)
SHORT: Final = Scale(
    rounds=2,
    alone_seconds=0.3,
    crowd_seconds=0.5,
    warm_up_seconds=0.1,
    most_appends=20_000,
    old_records=50_000,
    samples=20,
)
