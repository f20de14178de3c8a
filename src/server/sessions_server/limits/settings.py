"""How much anybody may ask of this server: the settings, and why their defaults are what they are.

The defaults are there to keep one caller from taking everything, not to ration: one process answers about ten thousand
requests a second at most, so an environment may have as much as one process can do, and one token a tenth of that. A stream
that waits takes about 30 kB, and a request that waits for its body about half of that.

A session's own tokens are counted as one, and all who follow the session may have come with them. So a token may have nearly as
many streams as a session, with some left for the others there, its engine among them, and enough requests at once for all to
come back at the same time, as they do after a restart.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from sessions_core.domain.rate import Rate
from sessions_core.errors import InvalidError

OFF: Final = frozenset({"", "0", "off"})


def read_rate(text: str) -> Rate | None:
    """Read ``<per second>`` or ``<per second>:<burst>``, or a word that says that there is no limit.

    Raises:
        ValueError: It says something else.
        InvalidError: The numbers are out of range.
    """
    return None if text.strip().lower() in OFF else Rate.parse(text)


def _zero_or_more(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value < 0:
        raise InvalidError(attribute.name, "must be at least 1, or 0 for no limit")


def _header(_: object, attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is not None and not (value.isascii() and value.replace("-", "").isalnum()):
        raise InvalidError(attribute.name, "must be the name of a header")


def _most(default: int) -> Any:
    return attrs.field(default=default, validator=_zero_or_more)


@attrs.frozen(kw_only=True, slots=False)  # of several bases only one may have slots
class LimitSettings:
    """Limits of one server process. Each may be set as ``SESSIONS_<NAME>``; 0 is no limit.

    Attributes:
        environment_rate: Requests of all callers of one environment; those that runs live on have as much once more.
        token_rate: Requests with one public token, or with those that are counted as one. They count for its environment, too.
        guess_rate: Credentials that do not work, from one address.
        streams: Subscriptions and other long answers that this process has open at a time.
        streams_per_environment: Those of one environment.
        streams_per_session: Those that follow one session.
        streams_per_token: Those with one public token, or with those that are counted as one.
        unfinished_bytes: What this process holds of bodies and frames of requests that are not finished.
        unfinished_bytes_per_environment: The same of one environment.
        unfinished_bytes_per_token: The same of one public token.
        client_address_header: Where a proxy in front says who its client is; None: there is no proxy.
    """

    environment_rate: Rate | None = attrs.field(default=Rate(10_000, 100_000))
    token_rate: Rate | None = attrs.field(default=Rate(1_000, 10_000))
    guess_rate: Rate | None = attrs.field(default=Rate(50, 500))
    streams: int = _most(20_000)
    streams_per_environment: int = _most(10_000)
    streams_per_session: int = _most(5_000)
    streams_per_token: int = _most(4_000)
    unfinished_bytes: int = _most(134_217_728)
    unfinished_bytes_per_environment: int = _most(67_108_864)
    unfinished_bytes_per_token: int = _most(33_554_432)
    client_address_header: str | None = attrs.field(default=None, validator=_header)
