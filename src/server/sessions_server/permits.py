"""Which requests are too many, of an environment and of a token.

Permits are taken when the credential is known and before anything else is done. A request with a key takes one of its
environment; one with a public token takes one of that token as well, or none at all. So whoever floods with one token is
stopped at that token's limit, and nobody else has less because of him than that limit allows him to take.
"""

from __future__ import annotations

from typing import Final

import attrs
from multidict import CIMultiDict

from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.rate import SECOND, Bucket, Taken
from sessions_core.ports.clock import Clock
from sessions_core.services.tolerant_limiter import TolerantRateLimiter
from sessions_server.limit_settings import LimitSettings
from sessions_server.metrics import Metrics
from sessions_server.problems import RateLimitedError, rate_headers

ENVIRONMENT: Final = "environment"
TOKEN: Final = "token"  # noqa: S105 - a kind of limit
REMEMBERED: Final = 10_000
"""Callers whose buckets are at hand."""
_ENOUGH: Final = 32
"""So many digits of a hash tell tokens apart."""


@attrs.define(eq=False, kw_only=True)
class Permits:
    """Hands out permits for requests.

    Attributes:
        limiter: None counts nothing.
    """

    settings: LimitSettings
    limiter: TolerantRateLimiter | None
    clock: Clock
    metrics: Metrics
    _buckets: BoundedDict[tuple[str, str | None, bool], tuple[Bucket, ...]] = attrs.field(
        init=False, factory=lambda: BoundedDict(REMEMBERED)
    )

    async def take(self, environment_id: EnvironmentId, token: str | None, *, is_vital: bool = False) -> Taken | None:
        """Take the permits of one request; None if it has no limits, or if nobody can tell just now.

        Args:
            environment_id: Whose request it is.
            token: Hash of the public token that was shown, if one was.
            is_vital: Only the token's own limit counts.

        Raises:
            RateLimitedError: There are none.
        """
        key = (environment_id, token, is_vital)
        buckets = self._buckets.get(key)
        if buckets is None:
            buckets = self._buckets[key] = self._buckets_of(environment_id, token, is_vital=is_vital)
        if not buckets or self.limiter is None:
            return None
        taken = await self.limiter.take(buckets)
        if taken is None:
            self.metrics.let_through()
        elif not taken.is_allowed:
            raise self._refusal(taken)
        return taken

    def show(self, taken: Taken, headers: CIMultiDict[str]) -> None:
        """Put on an answer where the limit stands that its request was counted for."""
        reset = self.clock.now().timestamp() + taken.microseconds / SECOND
        for name, text in rate_headers(taken.bucket.rate.burst, taken.remaining, reset).items():
            headers[name] = text  # twice as fast as an update

    def _refusal(self, taken: Taken) -> RateLimitedError:
        kind = ENVIRONMENT if taken.bucket.name == ENVIRONMENT else TOKEN
        self.metrics.refuse(kind)
        return RateLimitedError(kind, taken.bucket.rate.burst, taken.wait, self.clock.now() + taken.wait)

    def _buckets_of(self, environment_id: EnvironmentId, token: str | None, *, is_vital: bool) -> tuple[Bucket, ...]:
        if token is None:
            rate = None if is_vital else self.settings.environment_rate
            return () if rate is None else (Bucket(environment_id, ENVIRONMENT, rate),)
        rate = self.settings.token_rate
        own = () if rate is None else (Bucket(environment_id, f"{TOKEN}:{token[:_ENOUGH]}", rate),)
        key = (environment_id, None, is_vital)
        if key not in self._buckets:
            self._buckets[key] = self._buckets_of(environment_id, None, is_vital=is_vital)
        return own + self._buckets[key]  # there may be thousands of tokens, so they share what they can
