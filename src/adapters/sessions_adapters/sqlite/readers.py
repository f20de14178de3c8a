"""Threads that read, each on a connection of its own, while the writer writes."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from sessions_adapters.sqlite.requests import Work, call_on, closed_error, settle


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Let all statements inside see the same moment."""
    connection.execute("begin")
    try:
        yield
    finally:
        connection.execute("rollback")


@attrs.define(eq=False)
class Readers:
    """Owns reading connections from their start to their end."""

    _connections: list[sqlite3.Connection]
    _loop: asyncio.AbstractEventLoop
    _queue: queue.SimpleQueue[Work[Any] | None] = attrs.field(init=False, factory=queue.SimpleQueue)
    _threads: list[threading.Thread] = attrs.field(init=False)
    _is_over: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._threads = [
            threading.Thread(target=self._run, args=(connection,), name="sessions-sqlite-reader", daemon=True)
            for connection in self._connections
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def put(self, work: Work[Any]) -> None:
        """Take *work*. From the loop only.

        Raises:
            sqlite3.Error: The readers have stopped.
        """
        if self._is_over:
            raise closed_error()
        self._queue.put(work)

    def stop(self) -> list[threading.Thread]:
        """Take nothing more, carry out what was taken, then end. Returns the threads to wait for."""
        if not self._is_over:
            self._is_over = True
            for _ in self._threads:
                self._queue.put(None)
        return self._threads

    def _run(self, connection: sqlite3.Connection) -> None:
        while (work := self._queue.get()) is not None:
            if work.future is None or not work.future.done():
                self._read(connection, work)
                call_on(self._loop, settle, (work,))
        connection.close()

    def _read(self, connection: sqlite3.Connection, work: Work[Any]) -> None:
        try:
            work.answer = work.run(connection)
        except Exception as exc:  # noqa: BLE001 - the caller gets it
            work.error = exc
