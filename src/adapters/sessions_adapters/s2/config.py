"""Options of the S2 adapter."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs
from attrs.validators import ge, gt, optional

from sessions_core.errors import InvalidError

SCHEME: Final = "s2"
UNSCOPED_TOKEN: Final = "s2-skip-access-tokens"  # noqa: S105 - says that there is none
"""What direct writers are given where tokens are not checked: their client refuses an empty one."""
MAX_PREFIX_BYTES: Final = 64
_BASIN: Final = re.compile(r"[a-z0-9][a-z0-9-]{6,46}[a-z0-9]")
_PLACE: Final = re.compile(r"(:.+@)?[^:@]+")
_FORM: Final = "must look like s2://:token@basin or s2://basin?endpoint=http://host:port"
_PREFIX: Final = re.compile(r"([A-Za-z0-9._~:@-]+/)*[A-Za-z0-9._~:@-]*")


def _check_basin(_: object, __: object, basin: str) -> None:
    if not _BASIN.fullmatch(basin):
        raise InvalidError("basin of S2", "must be 8 to 48 lower-case letters, digits and inner hyphens")


def _check_prefix(_: object, __: object, prefix: str) -> None:
    if not _PREFIX.fullmatch(prefix) or len(prefix) > MAX_PREFIX_BYTES:
        raise InvalidError("prefix of S2", f"must be at most {MAX_PREFIX_BYTES} plain characters and slashes")


def _check_origin(_: object, __: object, endpoint: str | None) -> None:
    if endpoint is not None and not re.fullmatch(r"https?://[^/?#@]+", endpoint):
        raise InvalidError("endpoint of S2", "must be an origin such as http://127.0.0.1:8080")


def _check_token(config: S2Config, _: object, token: str) -> None:
    if config.endpoint is None and token == UNSCOPED_TOKEN:
        raise InvalidError("token of S2", "must be given for the hosted service, as in s2://:token@basin")


@attrs.frozen(kw_only=True)
class S2Config:
    """Where S2 is, what is kept there, and how long it is waited for.

    Attributes:
        basin: Holds all streams. One basin may serve several systems with different prefixes.
        token: What we show S2; it must be allowed to read, append, trim, fence and create streams under the prefix.
            The hosted service needs one.
        endpoint: Origin of a server of one's own (s2-lite); None is the hosted service.
        direct_endpoint: Origin of the same server as direct writers see it, where that differs.
        prefix: What all names of streams begin with.
        creates_basin: Make the basin if it is not there, and refuse one that lets its streams begin again at 0.
        issues_tokens: The service issues access tokens and checks them. s2-lite does neither.
        retention: How long a record of a basin made by us is kept; None is for good.
        timeout: How long one attempt at one request may take.
        patience: How long an append is tried again before it is given up.
        token_lifetime: How long credentials of direct writers are good for.
        flush_interval_ms: How long direct writers gather records before they send them.
        part_window_records: A part id is remembered while its record is among this many latest ones of its channel …
        part_window: … or is no older than this.
        window_bytes: How much of a channel is read back, to the next 1 000 records, by a process that does not know its part ids.
        parts: How many part ids are kept in memory at most, of all channels together; one takes about 230 bytes.
        channels: How many channels' tails are kept in memory, roughly.
        flights: How many appends to S2 are under way at once at most; each carries all that waits for its channel.

    Raises:
        InvalidError: A name or an endpoint that S2 would not take, or no token for the hosted service.
    """

    basin: str = attrs.field(validator=_check_basin)
    token: str = attrs.field(default=UNSCOPED_TOKEN, repr=False, validator=_check_token)
    endpoint: str | None = attrs.field(default=None, validator=_check_origin)
    direct_endpoint: str | None = attrs.field(default=None, validator=_check_origin)
    prefix: str = attrs.field(default="", validator=_check_prefix)
    creates_basin: bool = True
    issues_tokens: bool = attrs.field()
    retention: timedelta | None = attrs.field(default=None, validator=optional(ge(timedelta(hours=1))))
    timeout: timedelta = attrs.field(default=timedelta(seconds=5), validator=gt(timedelta()))
    patience: timedelta = attrs.field(default=timedelta(seconds=15), validator=gt(timedelta()))
    token_lifetime: timedelta = attrs.field(default=timedelta(hours=1), validator=gt(timedelta()))
    flush_interval_ms: int = attrs.field(default=100, validator=ge(1))
    part_window_records: int = attrs.field(default=1000, validator=ge(1))
    part_window: timedelta = timedelta(minutes=15)
    window_bytes: int = attrs.field(default=32 * 1_048_576, validator=ge(1_048_576))
    parts: int = attrs.field(default=500_000, validator=ge(1))
    channels: int = attrs.field(default=4096, validator=ge(2))
    flights: int = attrs.field(default=128, validator=ge(1))

    @issues_tokens.default
    def _issues_tokens(self) -> bool:
        return self.endpoint is None

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Read ``s2://[:token@]basin[?endpoint=http://host:port&prefix=…]``.

        Raises:
            InvalidError: It is not of that form: nothing in it is passed over, least of all a token without its colon.
        """
        parts = _split(url)
        query = dict(parse_qsl(parts.query))
        unknown = query.keys() - {"endpoint", "direct_endpoint", "prefix"}
        if unknown:
            raise InvalidError("URL of S2", "has a parameter that is not endpoint, direct_endpoint or prefix")
        if parts.password:
            options["token"] = unquote(parts.password)
        return cls(basin=parts.hostname or "", **(options | query))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may show a part of the token
        raise InvalidError("URL of S2", _FORM) from None
    if parts.scheme != SCHEME or not _PLACE.fullmatch(parts.netloc) or parts.path.strip("/") or parts.fragment:
        raise InvalidError("URL of S2", _FORM)
    return parts
