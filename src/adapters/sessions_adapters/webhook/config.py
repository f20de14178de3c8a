"""Options of the webhook adapter."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

import attrs

from sessions_adapters.webhook.signing import parse_secret
from sessions_core.errors import InvalidError


def _check_url(_: object, __: object, url: str) -> None:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise InvalidError("webhook_url", "must be the address of an engine, such as https://engine.example/runs")


def _parse_secrets(text: str) -> tuple[bytes, ...]:
    try:
        secrets = tuple(parse_secret(word) for word in text.split())
    except ValueError:
        secrets = ()
    if not secrets:
        raise InvalidError("webhook_secret", "must be whsec_ and 24 to 64 random bytes in base64, or several of these")
    return secrets


@attrs.frozen(kw_only=True)
class WebhookConfig:
    """Where run requests go, and how they are signed.

    Attributes:
        url: Begins with ``https://`` or ``http://``; redirects are not followed.
        secrets: Given as text: one secret, or several between spaces while one replaces another. All of them sign.
        timeout: How long one call may take in all. An append that wakes a run waits that long at most.
        connections: How many calls are made at once; further ones wait.

    Raises:
        InvalidError: No such URL or secret.
    """

    url: str = attrs.field(repr=False, validator=_check_url)
    secrets: tuple[bytes, ...] = attrs.field(repr=False, converter=_parse_secrets)
    timeout: timedelta = attrs.field(default=timedelta(seconds=5), validator=attrs.validators.gt(timedelta()))
    connections: int = attrs.field(default=32, validator=attrs.validators.ge(1))

    @property
    def is_readable_on_its_way(self) -> bool:
        """Tell whether requests, and the tokens in them, leave this machine without TLS."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and not _is_here(parts.hostname or "")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
