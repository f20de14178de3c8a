"""Credentials that do not work, counted by the address that they came from.

They belong to nobody, so there is no environment to count them for, and they are counted in this process alone: a guess must
not cost more than its answer. An address that is over its limit is answered without looking. What has worked here when it was
looked at last is no guess, and comes past all this: so others behind the same proxy lock out nobody who is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

import attrs
from multidict import MultiMapping

from sessions_core.domain.rate import Bucket, Buckets, Rate
from sessions_core.ports.clock import Clock
from sessions_server.metrics import Metrics
from sessions_server.problems import RateLimitedError, UnauthenticatedError

ADDRESS: Final = "address"
REMEMBERED: Final = 10_000
_NETWORK: Final = 64
"""Bits of an IPv6 address that say whose it is; the others its holder can choose freely."""
_LONGEST: Final = 64
_START: Final = datetime(2000, 1, 1, tzinfo=UTC)


@attrs.define(eq=False, kw_only=True)
class Guesses:
    """Limits how often an address may be wrong.

    Attributes:
        rate: None is no limit.
        header: Where a proxy in front says who its client is, in lower case; None if there is no proxy.
    """

    rate: Rate | None
    header: str | None
    clock: Clock
    metrics: Metrics
    _buckets: Buckets = attrs.field(init=False, factory=lambda: Buckets(REMEMBERED))

    @contextmanager
    def counted(self, peer: str | None, headers: Mapping[str, str]) -> Iterator[None]:
        """Look at a credential inside the block that is not known; if it does not work, that is counted.

        Args:
            peer: The address at the other end of the connection.
            headers: Of the request.

        Raises:
            RateLimitedError: There were too many from this address, and this one may be another; the block is not run.
        """
        if self.rate is None:
            yield
            return
        bucket = Bucket(None, self._address(peer, headers), self.rate)
        self._check(bucket)
        try:
            yield
        except UnauthenticatedError:
            self._buckets.take((bucket,), self._now())
            raise

    def _check(self, bucket: Bucket) -> None:
        found = self._buckets.look(bucket, self._now())
        if not found.is_allowed:
            self.metrics.refuse(ADDRESS)
            raise RateLimitedError(ADDRESS, bucket.rate.burst, found.wait, self.clock.now() + found.wait)

    def _now(self) -> int:
        return (self.clock.now() - _START) // timedelta(microseconds=1)

    def _address(self, peer: str | None, headers: Mapping[str, str]) -> str:
        """Return whom to count for. Of several addresses in the header the last is the one that the proxy itself has seen."""
        if self.header is None:
            return network_of(peer or "")
        said = headers.get(self.header, "")
        if isinstance(headers, MultiMapping):
            said = headers.getall(self.header, [""])[-1]
        return network_of(said.rpartition(",")[2].strip() or peer or "")


def network_of(address: str) -> str:
    """Return what is in one hand: an IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:_LONGEST]
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ip_network((parsed.packed, _NETWORK), strict=False))
