"""Dead letters in Postgres, in a table that is not replicated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import attrs

from sessions_adapters.postgres.database import PostgresDatabase
from sessions_adapters.postgres.values import key_of
from sessions_core.ports.change_feed import ChangeKind
from sessions_core.ports.dead_letters import DeadLetter, DeadLetters

STORE: Final = """
    insert into dead_letter (key, kind, session_id, version, reason, columns)
    select key, kind, session_id, version::numeric, reason, columns::json
    from unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
        with ordinality as given (key, kind, session_id, version, reason, columns, place)
    order by place
    on conflict (key) do nothing
"""
COUNT: Final = "select count(*) from dead_letter"
LATEST: Final = "select kind, session_id, version, reason, columns from dead_letter order by number desc limit $1"


@attrs.define
class PostgresDeadLetters(DeadLetters):
    """Keeps them until somebody deletes them with SQL."""

    _db: PostgresDatabase

    async def store(self, letters: Sequence[DeadLetter]) -> int:
        if not letters:
            return 0
        return await self._db.execute(STORE, *zip(*map(_values, letters), strict=True))

    async def count(self) -> int:
        row = await self._db.fetchrow(COUNT)
        return 0 if row is None else int(row["count"])

    async def list_latest(self, limit: int) -> list[DeadLetter]:
        return [_letter(row) for row in await self._db.fetch(LATEST, limit)]


def _values(letter: DeadLetter) -> tuple[Any, ...]:
    columns = json.dumps(dict(letter.columns), sort_keys=True)
    identity = (letter.kind.value, letter.session, str(letter.version))
    return key_of(*identity, columns), *identity, letter.reason, columns


def _letter(row: asyncpg.Record) -> DeadLetter:
    return DeadLetter(
        kind=ChangeKind(row["kind"]),
        session=row["session_id"],
        version=int(row["version"]),
        reason=row["reason"],
        columns=json.loads(row["columns"]),
    )
