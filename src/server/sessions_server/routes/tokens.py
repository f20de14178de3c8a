"""Public access tokens: what one has to claim, and minting them for callers who cannot sign."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from aiohttp import web
from msgspec import UNSET

from sessions_core.domain.access import may_grant
from sessions_core.domain.waitpoint import parse_duration
from sessions_core.errors import InvalidError
from sessions_server.problems import ForbiddenError
from sessions_server.route import JSON, UNSTORED, Call, respond
from sessions_server.wire.requests import CreatePublicToken
from sessions_server.wire.responses import PublicTokenItem, TokenClaims
from sessions_server.wire.values import parse_moment

LONGEST_TOKEN: Final = 6000
"""Characters; a token has to fit into a header of 8 KiB with room for the others."""


async def claims(call: Call) -> web.StreamResponse:
    """Tell what a token signed with the environment's root key has to claim."""
    return respond(TokenClaims(sub=call.environment_id, pub=True), headers=JSON)


async def create(call: Call) -> web.StreamResponse:
    """Mint a token that can do no more than its caller, for no longer."""
    body: CreatePublicToken = call.body
    if call.caller.scopes is not None and not may_grant(call.caller.scopes, body.scopes):
        raise ForbiddenError("A token cannot be given scopes that the key does not have")
    token = await call.context.auth.mint(call.caller, body.scopes, _lifetime(call, body), _extra(call, body))
    if len(token) > LONGEST_TOKEN:
        raise InvalidError("scopes", "are too many for one token")
    return respond(PublicTokenItem(token=token), headers=UNSTORED)


def _extra(call: Call, body: CreatePublicToken) -> dict[str, Any]:
    # Two one-time tokens of the same second and the same scopes must still be two.
    extra: dict[str, Any] = {"otu": True, "jti": call.sessions.ids.new()} if body.one_time_use is True else {}
    return extra if body.realtime is UNSET else {**extra, "realtime": body.realtime}


def _lifetime(call: Call, body: CreatePublicToken) -> timedelta:
    """Return how long the token is to live.

    Raises:
        InvalidError: Over, or further off than tokens may live.
    """
    config, now = call.context.config, call.sessions.clock.now()
    wanted = config.public_token_lifetime if body.expiration_time is UNSET else _parse(body.expiration_time, now)
    if not timedelta(seconds=1) <= wanted <= config.longest_public_token:
        limit = int(config.longest_public_token.total_seconds())
        raise InvalidError("expirationTime", f"must be between 1 and {limit} seconds from now")
    return wanted


def _parse(value: str | float, now: datetime) -> timedelta:
    """Read a duration (``1h30m``), Unix seconds, or an ISO date."""
    if not isinstance(value, str):
        return parse_moment(value * 1000, name="expirationTime") - now
    duration = parse_duration(value)
    return parse_moment(value, name="expirationTime") - now if duration is None else duration
