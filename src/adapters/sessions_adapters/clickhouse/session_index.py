"""Lists of sessions, from ClickHouse."""

from __future__ import annotations

import attrs

from sessions_adapters.clickhouse.database import ClickHouseDatabase
from sessions_adapters.clickhouse.selection import (
    LOOKS,
    TAGS,
    Selection,
    nearby_limit,
    page,
    page_statement,
    tags_parameters,
)
from sessions_adapters.clickhouse.values import from_ms, to_ms
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import SessionId
from sessions_core.domain.pagination import Direction, IndexEntry, PageRequest, SessionFilter
from sessions_core.ports.clock import Clock
from sessions_core.ports.session_index import SessionIndex


@attrs.define
class ClickHouseSessionIndex(SessionIndex):
    """Reads what the :class:`~sessions_adapters.clickhouse.ClickHouseIndexWriter` has written. Lags by as much as that does.

    Attributes:
        clock: Tells at which time a status is meant.
    """

    _database: ClickHouseDatabase
    clock: Clock

    async def select(self, environment: Environment, wanted: SessionFilter, request: PageRequest) -> list[IndexEntry]:
        if wanted.environment_id != environment.id:
            return []
        selection = page(self._selection(environment, wanted), request)
        looks, limit = _looks_of(wanted), nearby_limit(wanted, request, self.clock.now())
        if looks and limit is not None:
            entries, looked_at = await self._look(selection.until(limit, request.direction), request, looks[0])
            if len(entries) > request.size:
                return entries
            if looked_at == looks[0]:
                looks = looks[1:]  # without the limit it would look at the same again
        for look in looks:
            entries, looked_at = await self._look(selection, request, look)
            if len(entries) > request.size or looked_at < look:
                return entries
        entries, _ = await self._look(selection, request, None)
        return entries

    async def count(self, environment: Environment, wanted: SessionFilter) -> int:
        if wanted.environment_id != environment.id:
            return 0
        selection = self._selection(environment, wanted)
        [(number,)] = await self._database.query(selection.count(), selection.parameters)
        return int(number)

    async def list_tags(self, environment: Environment, *, containing: str = "", limit: int = 100) -> list[str]:
        rows = await self._database.query(TAGS, tags_parameters(environment, containing, limit))
        return [tag for (tag,) in rows]

    def _selection(self, environment: Environment, wanted: SessionFilter) -> Selection:
        return Selection.of(environment, wanted, to_ms(self.clock.now()))

    async def _look(self, selection: Selection, request: PageRequest, look: int | None) -> tuple[list[IndexEntry], int]:
        """Return up to ``size + 1`` entries, and at how many stored versions was looked, at most *look* if that is given."""
        statement = page_statement(selection, request.direction, look=look is not None)
        limits = {"limit": request.size + 1, "look": look or 0}
        [(found, looked_at)] = await self._database.query(statement, selection.parameters | limits)
        entries = [IndexEntry(from_ms(created_at), SessionId(session_id)) for created_at, session_id in found]
        # An array is not promised to keep the order of the rows it was made of.
        entries.sort(key=lambda entry: (entry.created_at, entry.id), reverse=request.direction is Direction.AFTER)
        return entries, looked_at


def _looks_of(wanted: SessionFilter) -> tuple[int, ...]:
    """Return how far to look; for the one session with an external id, at once at everything: there is an index for it."""
    return LOOKS if wanted.external_id is None else ()
