"""What ``sessions doctor`` wants to know of a ClickHouse. Changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio.to_thread
import attrs
from clickhouse_connect.driver.client import Client

from sessions_adapters.clickhouse.config import ClickHouseConfig
from sessions_adapters.clickhouse.database import FAILURES, connect, open_database
from sessions_adapters.clickhouse.schema import check_schema
from sessions_core.errors import IncompatibleStoreError, IndexUnavailableError


@attrs.frozen(kw_only=True)
class ClickHouseFacts:
    """What a server has said.

    Attributes:
        version: Such as ``25.8.2.1``.
        skew: How far its clock is before ours; nothing within the time that the answer took.
        problem: What is wrong with the tables, and what to do; None if they fit.
    """

    version: str
    skew: timedelta
    problem: str | None


async def inspect(config: ClickHouseConfig) -> ClickHouseFacts:
    """Ask the server.

    Raises:
        IndexUnavailableError: It gives no answer, or refuses.
    """
    try:
        version, skew = await anyio.to_thread.run_sync(_ask, config, abandon_on_cancel=True)
    except FAILURES as exc:
        raise IndexUnavailableError from exc
    return ClickHouseFacts(version=version, skew=skew, problem=await _problem(config))


def _ask(config: ClickHouseConfig) -> tuple[str, timedelta]:
    client: Client = connect(config, None)
    try:
        before = datetime.now(UTC)
        version, milliseconds = client.query("SELECT version(), toUnixTimestamp64Milli(now64(3))").result_rows[0]
        after = datetime.now(UTC)
    finally:
        client.close()
    theirs = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return version, max(theirs - after, timedelta()) + min(theirs - before, timedelta())


async def _problem(config: ClickHouseConfig) -> str | None:
    async with open_database(config) as database:
        try:
            await check_schema(database)
        except IncompatibleStoreError as error:
            return str(error)
    return None
