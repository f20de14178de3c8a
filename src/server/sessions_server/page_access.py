"""Who may have the chat page.

How this works
--------------
The page creates sessions without a key, so it is there only for people who sit at this machine: the server listens on
loopback addresses alone, and the request names one as its host. The second is what stops DNS rebinding, where somebody
else's page makes the browser take a name of theirs for 127.0.0.1. A proxy in front, which makes strangers look like people
on this machine, gives itself away by the headers that it adds, or by HTTP/1.0, which no browser speaks any more and nginx
does unless it is told otherwise. ``demo`` lifts all of this.

For everybody else its paths are unknown. Changes also have to come from the page itself and not from another one in the
same browser; the browser says so in ``Sec-Fetch-Site``, or in ``Origin`` if it is an old one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Final

import attrs
from aiohttp import web
from aiohttp.http import HttpVersion11
from multidict import CIMultiDictProxy

from sessions_core.errors import InvalidError
from sessions_server.page_environment import PageEnvironment
from sessions_server.page_files import PageFile, read_files
from sessions_server.problems import ForbiddenError

_LOOPBACK_HOST: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_PROXY_HEADERS: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


@attrs.define(eq=False)
class Page:
    """What the server knows about its chat page.

    Attributes:
        environment: Where it works.
        is_demo: Everybody may have it.
        is_local: The server listens on loopback addresses alone. Set when it begins to listen.
    """

    environment: PageEnvironment
    is_demo: bool = False
    is_local: bool = attrs.field(default=False, init=False)
    files: Mapping[str, PageFile] = attrs.field(init=False, factory=read_files)

    def listens_on(self, hosts: Iterable[str]) -> None:
        """Take note of the addresses that the server listens on."""
        self.is_local = all(ip_address(host).is_loopback for host in hosts)

    @property
    def is_served(self) -> bool:
        """Whether anybody may have it."""
        return self.is_demo or self.is_local

    def admits(self, request: web.BaseRequest) -> bool:
        """Tell whether the page exists for this request."""
        if self.is_demo or not self.is_local:
            return self.is_demo
        headers = request.headers
        hosts = headers.getall("Host", [])
        came_directly = request.version >= HttpVersion11 and not any(name in headers for name in _PROXY_HEADERS)
        return came_directly and len(hosts) == 1 and _LOOPBACK_HOST.fullmatch(hosts[0]) is not None


def check_sender(headers: CIMultiDictProxy[str]) -> None:
    """Let a change pass if this server's own page asks for it.

    Raises:
        ForbiddenError: Another page, or nobody knows who.
        InvalidError: The body does not say that it is JSON, as a plain form of another page could not.
    """
    site, origin, host = headers.get("Sec-Fetch-Site"), headers.get("Origin"), headers.get("Host")
    is_ours = site == "same-origin" if site is not None else origin in (f"http://{host}", f"https://{host}")
    if not is_ours:
        raise ForbiddenError("Only this server's own page may do this")
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise InvalidError("Content-Type", "must be application/json")
