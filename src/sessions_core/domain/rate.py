"""Token buckets: how often somebody may ask, at once and in the long run.

How this works
--------------
A bucket of *burst* permits that gets one back every *interval* is one number: the moment at which it will be full again.
Taking a permit moves that moment on by one interval; if it would then be further away than it takes to fill the whole
bucket, there was none left. Times are whole microseconds, so that adding them up is exact.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import attrs

from sessions_core.domain.ids import EnvironmentId
from sessions_core.errors import InvalidError

SECOND: Final = 1_000_000
_USUAL_SECONDS: Final = 10
_FEWEST_PER_SECOND: Final = 0.001
_MOST_PER_SECOND: Final = 1_000_000


def _check_per_second(_: object, __: object, value: float) -> None:
    if not _FEWEST_PER_SECOND <= value <= _MOST_PER_SECOND:
        raise InvalidError("rate", f"must be {_FEWEST_PER_SECOND} to {_MOST_PER_SECOND} a second")


def _check_burst(_: object, __: object, value: int) -> None:
    if not 1 <= value <= _MOST_PER_SECOND:
        raise InvalidError("rate", f"must allow 1 to {_MOST_PER_SECOND} at once")


@attrs.frozen
class Rate:
    """So many a second in the long run, and so many at once.

    Attributes:
        per_second: Rounded down to a whole number of microseconds between two permits.
        interval: These microseconds.
        span: Microseconds in which an empty bucket fills.

    Raises:
        InvalidError: Less than one in 1 000 s, more than a million a second, or none at once.
    """

    per_second: float = attrs.field(converter=float, validator=_check_per_second)
    burst: int = attrs.field(validator=_check_burst)
    interval: int = attrs.field(init=False, repr=False, eq=False)
    span: int = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "interval", math.ceil(SECOND / self.per_second))
        object.__setattr__(self, "span", self.interval * self.burst)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read ``<per second>`` or ``<per second>:<burst>``; the usual burst is what comes in ten seconds.

        Raises:
            ValueError: It says no number.
            InvalidError: The numbers are out of range.
        """
        per_second, _, burst = text.partition(":")
        number = float(per_second)
        return cls(number, int(burst) if burst else max(math.ceil(min(number, _MOST_PER_SECOND) * _USUAL_SECONDS), 1))

    def __str__(self) -> str:
        return f"{self.per_second:g}:{self.burst}"


@attrs.frozen
class Bucket:
    """What permits are taken from.

    Attributes:
        environment_id: Whose it is; None if it belongs to no environment.
        name: Which of that environment's.
        key: Unique among all buckets.
    """

    environment_id: EnvironmentId | None
    name: str
    rate: Rate
    key: str = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        owner = self.environment_id or ""
        object.__setattr__(self, "key", f"{len(owner)}:{owner}{self.name}")


@attrs.frozen
class Taken:
    """What became of the wish for a permit.

    Attributes:
        is_allowed: Whether it was taken. If not, nothing was taken from any bucket.
        bucket: The one that refused, else the first.
        debt: Microseconds until that one is full.
    """

    is_allowed: bool
    bucket: Bucket
    debt: int

    @property
    def remaining(self) -> int:
        """How many permits the bucket has left."""
        return (self.bucket.rate.span - self.debt) // self.bucket.rate.interval

    @property
    def wait(self) -> timedelta:
        """How long it takes until the bucket has one more; none if it is full."""
        return timedelta(microseconds=self.microseconds)

    @property
    def microseconds(self) -> int:
        """The wait as a number."""
        return self.debt and (self.debt % self.bucket.rate.interval or self.bucket.rate.interval)


class Buckets:
    """Buckets of one process, of which those that are not full are remembered, up to a number.

    Past that number the one that was used longest ago is forgotten, which fills it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._full_at: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, buckets: Sequence[Bucket], now: int) -> Taken:
        """Take a permit from each of *buckets*, or none at all. Every request does this, so it is written for speed.

        Args:
            buckets: At least one.
            now: Microseconds since any fixed moment. They may jump: back, and a bucket is empty at worst.
        """
        known = self._full_at
        debts: list[int] = []
        for bucket in buckets:
            rate = bucket.rate
            debt = known.get(bucket.key, now) - now
            if debt > rate.span:
                known[bucket.key], debt = now + rate.span, rate.span
            debt = rate.interval if debt < 0 else debt + rate.interval
            if debt > rate.span:
                return Taken(False, bucket, debt - rate.interval)
            debts.append(debt)
        for number, bucket in enumerate(buckets):
            self._remember(bucket.key, now + debts[number], now)
        return Taken(True, buckets[0], debts[0])

    def look(self, bucket: Bucket, now: int) -> Taken:
        """Say what would become of the wish for a permit, and take none."""
        rate = bucket.rate
        debt = min(max(self._full_at.get(bucket.key, now) - now, 0), rate.span)
        return Taken(debt + rate.interval <= rate.span, bucket, debt)

    def _remember(self, key: str, full_at: int, now: int) -> None:
        known = self._full_at
        is_new = key not in known
        known[key] = full_at
        if is_new:
            self._forget(now)
        else:
            known.move_to_end(key)

    def _forget(self, now: int) -> None:
        """Forget up to two: of those that were used longest ago, what is full, and one in any case past the limit."""
        known = self._full_at
        for _ in range(2):
            oldest = next(iter(known))
            if known[oldest] > now and len(known) <= self._limit:
                return
            del known[oldest]
