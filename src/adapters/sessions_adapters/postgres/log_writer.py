"""Appending: what arrives while one statement is on its way to the database shares the next one.

How this works
--------------
Callers queue up. One task takes what is there, hands it to ``append_records`` as arrays, and answers everybody when that
has been committed; meanwhile the next group gathers by itself. So a lone writer pays one round trip and many writers
share one. A record that is alone goes through ``append_record``, which costs half as much. A statement that fails for what
is in it is repeated with each request alone, so what fails, fails alone. One that waits too long for a channel that somebody
has locked is repeated once, without the channels that are locked. Any other failure is everybody's in the group; one that
got no answer is not repeated, since its records may be there.

Nobody waits for ever behind a slow group: who has waited too long for a turn is refused, and a group's connection is cut at
the deadline of its oldest request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import asyncpg
import attrs

from sessions_adapters.postgres.config import PostgresConfig
from sessions_adapters.postgres.connecting import Connection, close_connection, open_connection
from sessions_adapters.postgres.failures import FAILURES, for_each_caller, is_about_values, is_unsent, translated_before
from sessions_adapters.postgres.values import MILLISECOND, channel_key, encode_text, name_column, storable
from sessions_core.domain.channel import Appended, Channel, NewRecord, Record, encode_json
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import PartId
from sessions_core.errors import ChannelUnavailableError, GuardMismatchError, TailMismatchError

APPEND: Final = """
    select seq, is_new, stamp, refused_by from append_records(
        $1::int[], $2::bytea[], $3::text[], $4::bytea[], $5::bytea[], $6::text[], $7::int, $8::bigint, $9::bigint, $10::bigint
    )
"""
APPEND_ONE: Final = """
    select seq, is_new, stamp, refused_by from append_record(
        $1::bytea, $2::text, $3::bytea, $4::bytea, $5::text, $6::bigint, $7::bigint, $8::bigint
    )
"""
LOCK_CHANNEL: Final = "select next_seq from channel where id = $1 for update"
FIND_FREE: Final = "select id from channel where id = any($1::bytea[]) for update skip locked"
NO_GUARD: Final = "none"
"""No channel has this guard, so an append under it stores nothing new."""
# In the order of ids, so that two of these at once cannot wait for each other.
ENSURE_CHANNELS: Final = """
    insert into channel (id, environment_id, key, io, name)
    select * from unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[]) as given (id) order by id
    on conflict do nothing
"""


@attrs.define(eq=False)
class Append:
    """Records for one channel, and where they went.

    Attributes:
        key: The channel's.
        records: Without those whose part id is that of an earlier one of this request.
        sources: For each record that was given, its index in ``records``.
        since: When it came, by the event loop's clock.
        if_tail: The next seq that the channel must have; None for any.
        tail: What it was, where that was asked for.
    """

    channel: Channel
    key: bytes
    records: Sequence[NewRecord]
    sources: Sequence[int]
    guard: Guard
    future: asyncio.Future[list[Appended]]
    since: float
    if_tail: int | None = None
    tail: int | None = None

    @classmethod
    def of(cls, channel: Channel, given: Sequence[NewRecord], guard: Guard, if_tail: int | None = None) -> Append:
        """Make a request, waited for by the running task."""
        records: list[NewRecord] = []
        sources: list[int] = []
        seen: dict[PartId, int] = {}
        for record in given:
            known = None if record.part_id is None else seen.get(record.part_id)
            sources.append(len(records) if known is None else known)
            if known is None:
                if record.part_id is not None:
                    seen[record.part_id] = len(records)
                records.append(record)
        loop = asyncio.get_running_loop()
        return cls(channel, channel_key(channel), records, sources, guard, loop.create_future(), loop.time(), if_tail)

    def parts(self) -> Iterator[tuple[bytes, PartId]]:
        """Yield the part ids, each with its channel."""
        return ((self.key, record.part_id) for record in self.records if record.part_id is not None)

    @property
    def guard_text(self) -> str:
        """What the channel's guard is compared with: nothing fits where the tail does not."""
        return str(self.guard) if self.tail == self.if_tail else NO_GUARD

    @property
    def size(self) -> int:
        """Bytes of the bodies."""
        return sum(len(record.body) for record in self.records)

    def settle(self, answer: list[Appended] | BaseException) -> None:
        """Tell the caller, unless it has gone."""
        if self.future.done():
            return
        if isinstance(answer, BaseException):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


@attrs.define(eq=False)
class LogWriter:
    """Carries out appends, one statement at a time, on a connection of its own: a pool's would cost a quarter more.

    Attributes:
        committed: Called with the new records of each commit, by channel, before their callers are told.
    """

    _config: PostgresConfig
    _now: Callable[[], int | None]
    committed: Callable[[Mapping[bytes, list[Record]]], None]
    _waiting: deque[Append] = attrs.field(init=False, factory=deque)
    _bell: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)
    _is_over: bool = attrs.field(init=False, default=False)
    _connection: Connection | None = attrs.field(init=False, default=None)

    async def append(
        self, channel: Channel, records: Sequence[NewRecord], guard: Guard, if_tail: int | None = None
    ) -> list[Appended]:
        """Append *records*; a cancelled caller leaves it open whether they are stored.

        Answers within ``connect_timeout`` and ``statement_timeout`` together.

        Raises:
            GuardMismatchError: The guard is another one.
            TailMismatchError: The next seq is another one.
            ChannelUnavailableError: They could not be stored, or no answer came. Its cause is the driver's error.
            asyncpg.InterfaceError: The database is closed.
        """
        if self._is_over:
            raise closed_error()
        request = Append.of(channel, records, guard, if_tail)
        self._waiting.append(request)
        self._bell.set()
        return await request.future

    async def run(self) -> None:
        """Serve until :meth:`stop`."""
        try:
            while not self._is_over or self._waiting:
                await self._bell.wait()
                self._bell.clear()
                while group := self._take():
                    await self._decide(group)
        finally:
            if self._connection is not None:
                await close_connection(self._connection)

    def stop(self) -> None:
        """Take nothing more; what was taken is carried out."""
        self._is_over = True
        self._bell.set()

    def abandon(self) -> None:
        """Let nobody wait any longer."""
        self._is_over = True
        while self._waiting:
            self._waiting.popleft().settle(closed_error())

    def _take(self) -> list[Append]:
        """Take what may share a statement: no part id comes twice, and the requests of a channel stay in their order.

        One that asks for a tail goes alone, as what it asks for must hold before everything in its statement.
        """
        group: list[Append] = []
        left: list[Append] = []
        parts: set[tuple[bytes, PartId]] = set()
        held_up: set[bytes] = set()
        size = 0
        while self._waiting and len(group) < self._config.group_size and size < self._config.group_bytes:
            if group and self._waiting[0].if_tail is not None:
                break
            request = self._waiting.popleft()
            if request.key in held_up or not parts.isdisjoint(request.parts()):
                held_up.add(request.key)
                left.append(request)
            elif self._is_wanted(request):
                group.append(request)
                parts.update(request.parts())
                size += request.size
                if request.if_tail is not None:
                    break
        self._waiting.extendleft(reversed(left))
        return group

    def _is_wanted(self, request: Append) -> bool:
        """Tell whether somebody still waits for *request*; one that has waited too long for its turn is refused."""
        patience = self._config.statement_timeout.total_seconds()
        if asyncio.get_running_loop().time() - request.since > patience:
            request.settle(asyncpg.InterfaceError(f"the append has waited for {patience} s"))
        return not request.future.done()

    async def _decide(self, group: Sequence[Append]) -> None:
        try:
            await self._store(group)
        except asyncpg.LockNotAvailableError as error:
            await self._decide_free(group, error)
        except Exception as error:  # noqa: BLE001 - the callers get it, and the writer goes on
            if len(group) > 1 and is_about_values(error):
                for request in filter(self._is_wanted, group):
                    await self._decide((request,))
            else:
                _fail(group, error)
        except BaseException:
            _fail(group, asyncpg.ConnectionDoesNotExistError("the database was closed meanwhile"))
            raise

    async def _decide_free(self, group: Sequence[Append], error: asyncpg.LockNotAvailableError) -> None:
        """Try again, after *error*, without the channels that somebody has locked."""
        free = await self._find_free(group)
        _fail([request for request in group if request.key not in free], error)
        left = [request for request in group if request.key in free and self._is_wanted(request)]
        if left:
            await self._decide(left)

    async def _find_free(self, group: Sequence[Append]) -> set[bytes]:
        """Return the keys of the group's channels that nobody has locked; none if that cannot be found out."""
        if len(group) == 1 or self._connection is None:
            return set()
        try:
            keys = [request.key for request in group]
            rows = await self._connection.fetch(FIND_FREE, keys, timeout=self._time_left(group))
        except FAILURES:
            return set()
        return {row["id"] for row in rows}

    async def _store(self, group: Sequence[Append]) -> None:
        try:
            rows = await self._append(group)
        except FAILURES as error:
            if not is_unsent(error) or self._time_left(group) < 0:
                raise
            rows = await self._append(group)
        self._settle(group, rows)

    async def _append(self, group: Sequence[Append]) -> list[asyncpg.Record]:
        with translated_before(ChannelUnavailableError):
            connection = await self._connect()
        ending = asyncio.get_running_loop().call_later(self._time_left(group), connection.terminate)
        try:
            rows = await self._append_on(connection, group)
            if not rows:
                await ensure_channels(connection, {request.key: request.channel for request in group}.values())
                rows = await self._append_on(connection, group)
        except FAILURES as error:
            if not isinstance(error, asyncpg.PostgresError):
                connection.terminate()  # whatever it is in the middle of, nobody waits for it
            raise
        finally:
            ending.cancel()
        return rows

    async def _append_on(self, connection: Connection, group: Sequence[Append]) -> list[asyncpg.Record]:
        """Carry the statement out; return no rows if the row of a channel is missing."""
        request = group[0]
        if request.if_tail is None:
            return await self._send(connection, group)
        async with connection.transaction():
            request.tail = await connection.fetchval(LOCK_CHANNEL, request.key)
            # Without a row nothing is locked: it has to be made first, or others could append in between.
            return [] if request.tail is None else await self._send(connection, group)

    async def _send(self, connection: Connection, group: Sequence[Append]) -> list[asyncpg.Record]:
        rows = [(number, *_row(request, record)) for number, request in enumerate(group) for record in request.records]
        if len(rows) == 1:
            with suppress(asyncpg.UniqueViolationError):  # its part id came from another process just now
                return await self._fetch(connection, APPEND_ONE, rows[0][1:])
        columns = [list(column) for column in zip(*rows, strict=True)]
        return await self._fetch(connection, APPEND, [*columns, len({request.key for request in group})])

    async def _fetch(self, connection: Connection, statement: str, values: Sequence[Any]) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await connection.fetch(statement, *values, self._now(), *self._window())
        return found

    async def _connect(self) -> Connection:
        """Return the connection, which is opened anew when it has been lost."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await open_connection(self._config, lock_timeout=self._config.lock_timeout)
        return self._connection

    def _time_left(self, group: Sequence[Append]) -> float:
        """Return in how many seconds the oldest of *group* is to have its answer."""
        patience = self._config.connect_timeout + self._config.statement_timeout
        return group[0].since + patience.total_seconds() - asyncio.get_running_loop().time()

    def _window(self) -> tuple[int, int]:
        return self._config.part_window_records, self._config.part_window // MILLISECOND

    def _settle(self, group: Sequence[Append], rows: Sequence[asyncpg.Record]) -> None:
        stored: dict[bytes, list[Record]] = {}
        answers: list[list[Appended] | BaseException] = []
        first = 0
        for request in group:
            answers.append(_judge(request, rows[first : first + len(request.records)], stored))
            first += len(request.records)
        self.committed(stored)
        for request, answer in zip(group, answers, strict=True):
            request.settle(answer)


async def ensure_channels(connection: Connection, channels: Iterable[Channel]) -> None:
    """Make the rows of *channels* that are missing."""
    rows = [
        (
            channel_key(channel),
            storable(channel.environment_id),
            storable(channel.key),
            channel.io.value,
            name_column(channel.name),
        )
        for channel in channels
    ]
    await connection.execute(ENSURE_CHANNELS, *(list(column) for column in zip(*rows, strict=True)))


def closed_error() -> asyncpg.InterfaceError:
    """Return what a request gets that comes after the end."""
    return asyncpg.InterfaceError("the database is closed")


def headers_text(record: NewRecord) -> str | None:
    """Return the headers of *record* as they are stored."""
    return encode_json(record.headers) if record.headers else None


def _row(request: Append, record: NewRecord) -> tuple[bytes, str, bytes | None, bytes, str | None]:
    """Return channel, guard, part id, body and headers."""
    part = None if record.part_id is None else encode_text(record.part_id)
    return request.key, request.guard_text, part, record.body, headers_text(record)


def _judge(
    request: Append, rows: Sequence[asyncpg.Record], stored: dict[bytes, list[Record]]
) -> list[Appended] | BaseException:
    """Return the answer for *request*, and add to *stored* what is new."""
    if rows[0]["refused_by"] is not None:
        actual = Guard.parse(rows[0]["refused_by"])
        is_right = actual == request.guard and not actual.is_sealed
        return TailMismatchError(request.tail or 0) if is_right else GuardMismatchError(actual)
    places = []
    for record, row in zip(request.records, rows, strict=True):
        seq, is_new, stamp, _ = row
        places.append(Appended(seq, is_new, stamp))
        if is_new:
            stored.setdefault(request.key, []).append(Record(seq, stamp, record.body, record.headers))
    if len(request.sources) == len(places):
        return places
    return [
        places[source] if source not in request.sources[:index] else attrs.evolve(places[source], is_new=False)
        for index, source in enumerate(request.sources)
    ]


def _fail(group: Iterable[Append], error: BaseException) -> None:
    for request in group:
        request.settle(for_each_caller(error))
