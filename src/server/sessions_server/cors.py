"""Letting browsers in: any origin, as every request carries its own credential and none rides on cookies."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from multidict import CIMultiDict

METHODS: Final = "GET,HEAD,PUT,PATCH,POST,DELETE"
_EXPOSED_HEADERS: Final = (
    "Retry-After",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
    "x-should-retry",
    "x-trigger-jwt",
    "x-trigger-jwt-claims",
    "X-S2-Access-Token",
    "X-S2-Basin",
    "X-S2-Endpoint",
    "X-S2-Flush-Interval-Ms",
    "X-S2-Max-Retries",
    "X-S2-Stream-Name",
)
EXPOSED: Final = ", ".join(_EXPOSED_HEADERS)
MAX_AGE: Final = "300"


def admit(origin: str | None, headers: CIMultiDict[str]) -> None:
    """Put on a response what a browser at *origin* needs in order to read it."""
    if origin is None or "Access-Control-Allow-Origin" in headers or not origin.isascii():
        return
    headers["Access-Control-Allow-Origin"] = origin
    headers["Vary"] = "Origin"
    headers.setdefault("Access-Control-Expose-Headers", EXPOSED)


def preflight(request: web.BaseRequest) -> web.Response:
    """Answer ``OPTIONS``."""
    response = web.Response(
        body=b"{}",
        headers={
            "Content-Type": "application/json",
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Max-Age": MAX_AGE,
        },
    )
    admit(request.headers.get("Origin"), response.headers)
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    if wanted.isascii() and wanted:
        response.headers["Access-Control-Allow-Headers"] = wanted
        response.headers["Vary"] = "Origin, Access-Control-Request-Headers"
    return response
