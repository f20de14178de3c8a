"""What ``sessions doctor`` wants to know of S2. Makes no basin and no stream; a token that it is given it gives back."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
from s2_sdk import S2, AccessTokenScope, ExactMatch, S2ServerError

from sessions_adapters.s2.basin import open_basin
from sessions_adapters.s2.config import S2Config
from sessions_adapters.s2.direct_writes import OPERATIONS
from sessions_adapters.s2.failures import translated

TOKEN_LIFETIME: Final = timedelta(minutes=2)
_MISSING: Final = 404
_FORBIDDEN: Final = 403


@attrs.frozen(kw_only=True)
class S2Facts:
    """What the service has said.

    Attributes:
        has_basin: The basin is there; None if our token may not ask.
        reuses_seqs: It deletes streams that are empty, whose seqs would begin again at 0.
        has_issued: It has issued a token for one stream; None where nobody asked.
    """

    has_basin: bool | None
    reuses_seqs: bool
    has_issued: bool | None


async def inspect(config: S2Config) -> S2Facts:
    """Ask the service.

    Raises:
        ChannelUnavailableError: It gives no answer, or our token is not good.
    """
    async with open_basin(attrs.evolve(config, creates_basin=False)) as basin:
        with translated():
            has_basin, reuses_seqs = await _look_at(basin.admin, config)
            has_issued = await _issue(basin.admin, config) if config.issues_tokens else None
    return S2Facts(has_basin=has_basin, reuses_seqs=reuses_seqs, has_issued=has_issued)


async def _look_at(admin: S2, config: S2Config) -> tuple[bool | None, bool]:
    try:
        found = await admin.get_basin_config(config.basin)
    except S2ServerError as error:
        if error.status_code == _MISSING:
            return False, False
        if error.status_code == _FORBIDDEN:
            return None, False
        raise
    streams = found.default_stream_config
    return True, streams is not None and bool(streams.delete_on_empty_min_age)


async def _issue(admin: S2, config: S2Config) -> bool:
    """Tell whether we are given a token as direct writers need it."""
    name = f"sessions-doctor-{secrets.token_hex(8)}"
    scope = AccessTokenScope(
        basins=ExactMatch(config.basin), streams=ExactMatch(f"{config.prefix}doctor"), ops=list(OPERATIONS)
    )
    try:
        await admin.issue_access_token(name, scope=scope, expires_at=datetime.now(UTC) + TOKEN_LIFETIME)
    except S2ServerError as error:
        if error.status_code == _FORBIDDEN:
            return False
        raise
    await admin.revoke_access_token(name)
    return True
