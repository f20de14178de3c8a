"""Credentials that do not work, counted by the address that they came from.

They belong to nobody, so there is no environment to count them for, and they are counted in this process alone: a guess must
not cost more than its answer. An address that is over its limit is answered without looking. No more are looked at at a time
than there are permits, so that also of many at once no more than the limit can be wrong. What works takes none, nor what the
store is silent about; whoever leaves before the answer has guessed. What has worked here when it was looked at last is no
guess, and comes past all this: so others behind the same proxy lock out nobody who is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final
from weakref import WeakValueDictionary

import attrs
from multidict import MultiMapping

from sessions_core.domain.rate import Bucket, Buckets, Rate, Taken
from sessions_core.errors import UnavailableError
from sessions_core.ports.clock import Clock
from sessions_server.observability.metrics import Metrics
from sessions_server.problems import RateLimitedError

ADDRESS: Final = "address"
REMEMBERED: Final = 10_000
PATIENCE_SECONDS: Final = 2.0
"""After a restart all who are behind one address come at once, and most of them are no guesses."""
_NETWORK: Final = 64
"""Bits of an IPv6 address that say whose it is; the others its holder can choose freely."""
_LONGEST: Final = 64
_START: Final = datetime(2000, 1, 1, tzinfo=UTC)


@attrs.define(eq=False)
class _Looks:
    """Looks at credentials of one address that are under way.

    Attributes:
        count: How many.
        door: Who would begin another stands here, one after the other.
    """

    count: int = 0
    door: asyncio.Lock = attrs.field(init=False, factory=asyncio.Lock)
    _ended: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)

    async def wait(self) -> None:
        """Wait until one of them ends; only whoever stands in the door does."""
        self._ended.clear()
        await self._ended.wait()

    def end(self) -> None:
        """Say that one has ended."""
        self.count -= 1
        self._ended.set()


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
    _looks: WeakValueDictionary[str, _Looks] = attrs.field(init=False, factory=WeakValueDictionary)

    @asynccontextmanager
    async def counted(self, peer: str | None, headers: Mapping[str, str]) -> AsyncIterator[None]:
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
        looks = self._looks.setdefault(bucket.name, _Looks())
        await self._begin(looks, bucket)
        try:
            yield
        except UnavailableError:
            raise
        except BaseException:
            self._buckets.take((bucket,), self._now())
            raise
        finally:
            looks.end()

    async def _begin(self, looks: _Looks, bucket: Bucket) -> None:
        """Begin a look; while those that are under way might use up all permits, wait for one of them, but not for long."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._stand_in_the_door(looks, bucket)
        except TimeoutError:
            raise self._refusal(Taken(False, bucket, bucket.rate.span)) from None

    async def _stand_in_the_door(self, looks: _Looks, bucket: Bucket) -> None:
        async with looks.door:
            while (found := self._buckets.look(bucket, self._now())).remaining <= looks.count:
                if not looks.count:
                    raise self._refusal(found)
                await looks.wait()
            looks.count += 1

    def _refusal(self, taken: Taken) -> RateLimitedError:
        self.metrics.refuse(ADDRESS)
        return RateLimitedError(ADDRESS, taken.bucket.rate.burst, taken.wait, self.clock.now() + taken.wait)

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
    """Return what is in one hand: an IPv4 address, or the network of an IPv6 address. Some proxies say the port, too; that is left out."""
    try:
        parsed = ip_address(_without_port(address))
    except ValueError:
        return address[:_LONGEST]
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ip_network((parsed.packed, _NETWORK), strict=False))


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
