"""Which requests are too many, of an environment and of a token.

How this works
--------------
Permits are taken when the credential is known and before anything else is done. A request with a key takes one of its
environment; one with a public token takes one of that token as well, or none at all. So whoever floods with one token is
stopped at that token's limit, and nobody else has less because of him than that limit allows him to take.

That would be worth nothing if a token got its holder others, each with a limit of its own. So every token has a name under
which it is counted (``counted_as``), and what we hand out ourselves has it from what it is for: all tokens of one session
count as one, whichever turn they came from, and so do those of one run, and those of the direct writers of one channel that
a key has asked for. What a public token asks us for (a session that it creates, the credentials of a direct writer) counts as that
token. Only tokens that a key asks for or that a root key signs count each for itself: who has the key is the environment.

What runs live on is counted apart, in a bucket of the environment's own (``vital``), for those who may carry out the run
in question. So a flood takes no heartbeat away, heartbeats have a limit, and who may not send one cannot use that limit up.
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
from sessions_server.limits.settings import LimitSettings
from sessions_server.observability.metrics import Metrics
from sessions_server.problems import RateLimitedError, rate_headers

ENVIRONMENT: Final = "environment"
VITAL: Final = "vital"
TOKEN: Final = "token"  # noqa: S105 - a kind of limit
REMEMBERED: Final = 10_000
"""Callers whose buckets are at hand."""


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

    async def take(
        self, environment_id: EnvironmentId, counted_as: str | None, *, is_vital: bool = False
    ) -> Taken | None:
        """Take the permits of one request; None if it has no limits, or if nobody can tell just now.

        Args:
            environment_id: Whose request it is.
            counted_as: The name under which the token that was shown is counted; None if a key was.
            is_vital: It counts among what runs live on, and not among the other requests of its environment.

        Raises:
            RateLimitedError: There are none.
        """
        key = (environment_id, counted_as, is_vital)
        buckets = self._buckets.get(key)
        if buckets is None:
            buckets = self._buckets[key] = self._buckets_of(environment_id, counted_as, is_vital=is_vital)
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
        name = taken.bucket.name
        kind = ENVIRONMENT if name in (ENVIRONMENT, VITAL) else TOKEN
        self.metrics.refuse(VITAL if name == VITAL else kind)
        return RateLimitedError(kind, taken.bucket.rate.burst, taken.wait, self.clock.now() + taken.wait)

    def _buckets_of(
        self, environment_id: EnvironmentId, counted_as: str | None, *, is_vital: bool
    ) -> tuple[Bucket, ...]:
        if counted_as is None:
            rate = self.settings.environment_rate
            return () if rate is None else (Bucket(environment_id, VITAL if is_vital else ENVIRONMENT, rate),)
        rate = self.settings.token_rate
        own = () if rate is None else (Bucket(environment_id, f"{TOKEN}:{counted_as}", rate),)
        key = (environment_id, None, is_vital)
        if key not in self._buckets:
            self._buckets[key] = self._buckets_of(environment_id, None, is_vital=is_vital)
        return own + self._buckets[key]  # there may be thousands of tokens, so they share what they can
