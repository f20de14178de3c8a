"""ClickHouse, asked on threads.

How this works
--------------
The driver blocks, and one of its clients runs one statement at a time. So there is a fixed number of threads, each with a
client of its own, made when it is first needed (ClickHouse may be down until then). Whoever waits for an answer may be
cancelled or run out of time: then the statement goes on to its end on its thread, which ClickHouse and the driver limit,
and its answer is dropped. A statement whose caller has left before a thread took it is never sent. So however often calls
are cancelled, there are never more threads than workers.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import attrs

from sessions_adapters.clickhouse.config import ClickHouseConfig
from sessions_core.errors import IndexRefusedError, IndexUnavailableError, MissingExtraError, SessionsError

try:
    from clickhouse_connect import get_client
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.exceptions import ClickHouseError, Error
except ImportError as exc:
    raise MissingExtraError("An index in ClickHouse", "clickhouse-connect", "clickhouse") from exc

T = TypeVar("T")

FAILURES: Final = (ClickHouseError, OSError, TimeoutError)
REFUSALS: Final = (
    *("CANNOT_PARSE", "INCORRECT_DATA", "TYPE_MISMATCH", "ARGUMENT_OUT_OF_BOUND", "TOO_DEEP_RECURSION"),
    "VIOLATED_CONSTRAINT",  # of somebody who has put one on the table
)
"""How the names of ClickHouse's errors begin that are about the data, which will be the same at the next try."""


@attrs.define(eq=False)
class ClickHouseDatabase:
    """Carries out statements on a few threads.

    Attributes:
        workers: How many threads there are.
        timeout: How long a call may take in all.
        keep_alive: See :class:`~sessions_adapters.clickhouse.ClickHouseConfig`.
    """

    _make_client: Callable[[], Client]
    workers: int = attrs.field(default=4, kw_only=True)
    timeout: timedelta = attrs.field(default=timedelta(seconds=10), kw_only=True)
    keep_alive: timedelta | None = attrs.field(default=None, kw_only=True)
    _threads: ThreadPoolExecutor = attrs.field(init=False, repr=False)
    _own: threading.local = attrs.field(init=False, factory=threading.local, repr=False)
    _clients: list[Client] = attrs.field(init=False, factory=list, repr=False)
    _is_closed: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="sessions-clickhouse")

    async def query(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows that *statement* finds. *parameters* travel beside it, for its ``{name:Type}``.

        Raises:
            IndexUnavailableError: No answer in time, or none that helps.
        """
        return await self.run(partial(_query, statement, parameters))

    async def run(self, work: Callable[[Client], T]) -> T:
        """Return what *work* does with a client, on one of the threads.

        Raises:
            IndexUnavailableError: No answer in time, or none that helps.
            IndexRefusedError: ClickHouse does not take this data.
        """
        if self._is_closed:
            raise IndexUnavailableError
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._on_client, work)
        except FAILURES as exc:
            raise _failure_of(exc) from exc

    async def aclose(self) -> None:
        """Take nothing more, let the threads end, and close their clients. Waits no longer than the timeout."""
        self._is_closed = True
        with anyio.move_on_after(self.timeout.total_seconds(), shield=True):
            await anyio.to_thread.run_sync(self._end, abandon_on_cancel=True)

    def _end(self) -> None:
        self._threads.shutdown()
        for client in self._clients:
            with suppress(*FAILURES):
                client.close()

    def _on_client(self, work: Callable[[Client], T]) -> T:
        if self._is_closed:
            raise IndexUnavailableError  # it was closed while this one waited
        client: Client | None = getattr(self._own, "client", None)
        if client is None:
            client = self._own.client = self._make_client()
            self._clients.append(client)
        with self._rested(client):
            return work(client)

    @contextmanager
    def _rested(self, client: Client) -> Iterator[None]:
        """Use *client* in the block; its connection is opened anew for that if it has rested for too long."""
        if self.keep_alive is None:
            yield
            return
        if monotonic() - getattr(self._own, "used_at", -math.inf) > self.keep_alive.total_seconds():
            client.close_connections()
        try:
            yield
        finally:
            self._own.used_at = monotonic()
            if not self.keep_alive:
                client.close_connections()


@asynccontextmanager
async def open_database(config: ClickHouseConfig) -> AsyncGenerator[ClickHouseDatabase]:
    """Open *config*'s database for the time of the block. Nothing is sent before it is used."""
    database = ClickHouseDatabase(
        partial(connect, config, config.database),
        workers=config.workers,
        timeout=config.timeout,
        keep_alive=config.keep_alive,
    )
    try:
        yield database
    finally:
        await database.aclose()


def connect(config: ClickHouseConfig, database: str | None) -> Client:
    """Return a client of its own connection. Blocks.

    Raises:
        ClickHouseError: There is nobody, or no such database.
    """
    seconds = math.ceil(config.timeout.total_seconds())
    settings = {"max_execution_time": seconds}
    if config.url.startswith("chdb:"):
        return get_client(dsn=config.url, database=database, settings=settings)
    return get_client(
        dsn=config.url,
        interface=urlsplit(config.url).scheme,  # which the driver does not take from there
        database=database,
        settings=settings,
        connect_timeout=seconds,
        send_receive_timeout=seconds,
        autogenerate_session_id=False,
        client_name="sessions",
    )


def _query(statement: str, parameters: dict[str, Any], client: Client) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(statement, parameters=parameters).result_rows]


def _failure_of(error: Exception) -> SessionsError:
    name = error.name if isinstance(error, Error) else None
    if name is not None and name.startswith(REFUSALS):
        return IndexRefusedError()
    unavailable = IndexUnavailableError()
    unavailable.add_note(f"ClickHouse: {name or type(error).__name__}")
    return unavailable
