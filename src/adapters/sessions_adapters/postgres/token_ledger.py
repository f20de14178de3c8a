"""Used one-time tokens in Postgres."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import attrs

from sessions_adapters.postgres.database import PostgresDatabase
from sessions_core.domain.ids import EnvironmentId
from sessions_core.ports.environment_store import TokenLedger

# A few that would be refused for their age anyway go on the way; what another call holds is left to it.
CONSUME: Final = """
    with forgotten as (
        delete from used_token where (environment_id, hash) in (
            select environment_id, hash from used_token
            where expires_at <= now_or($4) and (environment_id, hash) <> ($1, $2) limit 16 for update skip locked
        )
    )
    insert into used_token (environment_id, hash, expires_at) values ($1, $2, $3)
    on conflict (environment_id, hash) do update set expires_at = excluded.expires_at
        where used_token.expires_at <= now_or($4)
"""


@attrs.define
class PostgresTokenLedger(TokenLedger):
    """Keeps used one-time tokens until they would be refused for their age anyway."""

    _db: PostgresDatabase

    async def consume(self, environment_id: EnvironmentId, token_hash: str, expires_at: datetime) -> bool:
        return await self._db.execute(CONSUME, environment_id, token_hash, expires_at, self._db.at()) > 0
