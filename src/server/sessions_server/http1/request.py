"""A request as this server's own connections make it, over either version of HTTP."""

from __future__ import annotations

from aiohttp import web


class Request(web.BaseRequest):
    """Its body is as it was sent: what packs it is undone where it is read, and there within the route's cap.

    A request of somebody else's aiohttp application is none of these: there aiohttp has undone it.
    """
