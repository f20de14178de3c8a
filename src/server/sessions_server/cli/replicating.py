"""Replication in this process: alone, beside a server, or as a backfill."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

import attrs

from sessions_adapters.profiles import Replication, find_tracers, open_replication
from sessions_core.domain.events import BackfillAdvanced, Event
from sessions_core.ports.observer import Observer
from sessions_core.ports.session_scan import BackfillProgress
from sessions_server.cli.backends import replication_of
from sessions_server.cli.signals import stop_on_signals
from sessions_server.cli.text import to_json
from sessions_server.config import Config, ReplicationVariables
from sessions_server.observability.logs import EventLog, Observers, replication_logger, set_up_logging
from sessions_server.observability.metrics import Metrics
from sessions_server.observability.replication_health import ReplicationStatus, listening

EXIT_INTERRUPTED: Final = 130
STEP_SECONDS: Final = 1.0
CLICKHOUSE_LOGGERS: Final = ("clickhouse_connect", "urllib3")
"""Of the driver, and of what it sends with."""


def replicate(config: Config, given: ReplicationVariables, host: str, port: int | None, *, as_json: bool) -> None:
    """Replicate until SIGTERM or SIGINT; what was read by then is written.

    Args:
        config: What the store is, and how to log.
        given: What is said about replication.
        host: Where to listen for questions about how it is.
        port: None: nowhere.
        as_json: Print one JSON object per line instead of sentences.

    Raises:
        SessionsError: It cannot begin; says why.
    """
    _set_up_logging(config, given)
    asyncio.run(_replicate(config, given, host, port, as_json=as_json))


def backfill(config: Config, given: ReplicationVariables, *, as_json: bool) -> int:
    """Fill in older sessions, or go on with that; return the exit code.

    Raises:
        SessionsError: It cannot begin; says why.
    """
    _set_up_logging(config, given)
    return asyncio.run(_backfill(config, given, as_json=as_json))


@asynccontextmanager
async def replicating(
    config: Config, given: ReplicationVariables, observer: Observer
) -> AsyncIterator[ReplicationStatus | None]:
    """Replicate inside the block, if that is wanted here.

    Raises:
        SessionsError: It cannot begin; says why.
    """
    if not given.enabled:
        yield None
        return
    _set_levels(given)
    async with open_replication(replication_of(config, given), observer) as replication, replication.running():
        yield ReplicationStatus(replication.replicator, replication.watch)


async def _replicate(
    config: Config, given: ReplicationVariables, host: str, port: int | None, *, as_json: bool
) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop, as_json=as_json)
    metrics = Metrics()
    observer = Observers((metrics, EventLog(), *find_tracers()))
    async with (
        open_replication(replication_of(config, given), observer) as replication,
        replication.running(),
        listening(ReplicationStatus(replication.replicator, replication.watch), metrics, host, port) as address,
    ):
        print(_welcome(address, as_json=as_json), flush=True)
        await stop.wait()


def _welcome(address: str | None, *, as_json: bool) -> str:
    if as_json:
        return to_json({"event": "replicating", "address": address})
    return "sessions is replicating" + ("" if address is None else f" and listening on {address}")


async def _backfill(config: Config, given: ReplicationVariables, *, as_json: bool) -> int:
    stop = asyncio.Event()
    stop_on_signals(stop, as_json=as_json)
    observer = Observers((_Progress(as_json=as_json), EventLog(), *find_tracers()))
    async with open_replication(replication_of(config, given), observer) as replication:
        ended = await _until(stop, replication)
    if ended is None:
        return EXIT_INTERRUPTED
    done = {"event": "backfilled", "sessions": ended.done}
    print(to_json(done) if as_json else f"all {ended.done} sessions are in the index", flush=True)
    return 0


async def _until(stop: asyncio.Event, replication: Replication) -> BackfillProgress | None:
    """Return how the backfill ended; None if *stop* came first."""
    work, stopping = asyncio.create_task(replication.backfill.run()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        for task in (work, stopping):
            task.cancel()
        await asyncio.wait((work, stopping))


@attrs.define
class _Progress(Observer):
    """Tells the person at the terminal how far a backfill is: at most once a second, and at last."""

    as_json: bool = attrs.field(kw_only=True)
    _told_at: float = attrs.field(init=False, default=-STEP_SECONDS)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, BackfillAdvanced):
            return
        if monotonic() - self._told_at < STEP_SECONDS and event.done < event.total:
            return
        self._told_at = monotonic()
        facts = {"event": "backfilling", "done": event.done, "total": event.total}
        text = to_json(facts) if self.as_json else f"backfill: {event.done} of about {event.total} sessions"
        print(text, file=sys.stderr, flush=True)


def _set_up_logging(config: Config, given: ReplicationVariables) -> None:
    set_up_logging(config.log_level, as_json=config.log_json)
    _set_levels(given)


def _set_levels(given: ReplicationVariables) -> None:
    replication_logger.setLevel(given.log_level)
    for name in CLICKHOUSE_LOGGERS:
        logging.getLogger(name).setLevel(given.clickhouse_log_level)
