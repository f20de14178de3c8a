"""What ``sessions doctor`` wants to know of replication. Changes nothing."""

from __future__ import annotations

from typing import Final

import attrs

from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import connect
from sessions_adapters.postgres.failures import translated
from sessions_adapters.postgres.replication.config import ReplicationConfig
from sessions_adapters.postgres.replication.gauge import MEASURE
from sessions_adapters.postgres.replication.setup import find_problem
from sessions_core.errors import StoreUnavailableError

SLOT: Final = "select active from pg_replication_slots where slot_name = $1"
LETTERS: Final = "select count(*) from dead_letter"
BACKFILL: Final = "select ended_at is not null from backfill where slot = $1"


@attrs.frozen(kw_only=True)
class ReplicationFacts:
    """What a server has said.

    Attributes:
        problem: What is wrong with the server, the slot or the publication, and what to do; None if all fits.
        has_slot: The slot is there.
        is_active: Somebody streams from it.
        lag_bytes: Of the server's log, not acknowledged yet.
        retained_bytes: Of the server's log, kept for the slot.
        has_backfill: Sessions older than the slot have been filled in; None: nobody has begun with that.
        dead_letters: How many are kept.
    """

    problem: str | None
    has_slot: bool
    is_active: bool
    lag_bytes: int
    retained_bytes: int
    has_backfill: bool | None
    dead_letters: int


async def inspect(config: PostgresConfig, options: ReplicationConfig) -> ReplicationFacts:
    """Ask the server, which has our schema.

    Raises:
        StoreUnavailableError: It gives no answer, or refuses.
    """
    with translated(StoreUnavailableError):
        async with connect(config) as connection:
            is_active = await connection.fetchval(SLOT, options.slot)
            measure = await connection.fetchrow(MEASURE, options.slot)
            return ReplicationFacts(
                problem=await find_problem(connection, config.schema, options),
                has_slot=is_active is not None,
                is_active=bool(is_active),
                lag_bytes=measure["lag"] if measure else 0,
                retained_bytes=measure["retained"] if measure else 0,
                has_backfill=await connection.fetchval(BACKFILL, options.slot),
                dead_letters=await connection.fetchval(LETTERS),
            )
