"""The one thread that writes: many writes share a transaction, and one wake-up of the loop.

How this works
--------------
Callers put requests into a queue. The thread takes what is there, carries it out between ``begin immediate`` and
``commit``, and lets the loop settle all of it at once. While it waits for the disk the next group gathers by itself,
so a lone writer pays one commit and many writers share one.

Appends come first and in bulk; all other work runs in a savepoint each. If that fails, the transaction is repeated with
looking up part ids; if that fails too, everybody gets a transaction of their own. So what fails, fails alone.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from sessions_adapters.sqlite.log_writer import LogWriter
from sessions_adapters.sqlite.requests import Append, Request, Work, call_on, closed_error, fail, settle
from sessions_core.errors import SessionsError

_logger = logging.getLogger("sessions.sqlite")
_logger.addHandler(logging.NullHandler())

_PAGES_PER_WORK: Final = 6
_PATIENCE: Final = 16
"""How many times more pages than usual may be written before a checkpoint lets others wait."""


@attrs.define(eq=False)
class Writer:
    """Owns the writing connection from its start to its end.

    Attributes:
        committed: Called on the loop with the appends of each commit, before their callers are told.
        ended: Called on the loop when the writer has stopped without being told to.
    """

    _connection: sqlite3.Connection
    _log: LogWriter
    _now: Callable[[], int]
    _group_size: int
    _checkpoint_pages: int
    _loop: asyncio.AbstractEventLoop
    committed: Callable[[Sequence[Append]], None]
    ended: Callable[[], None]
    _queue: queue.SimpleQueue[Request | None] = attrs.field(init=False, factory=queue.SimpleQueue)
    _thread: threading.Thread = attrs.field(init=False)
    _is_over: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sessions-sqlite-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, request: Request) -> None:
        """Take *request*. From the loop only.

        Raises:
            sqlite3.Error: The writer has stopped.
        """
        if self._is_over:
            raise closed_error()
        self._queue.put(request)

    def stop(self) -> threading.Thread:
        """Take nothing more, carry out what was taken, then end. From the loop only; returns the thread to wait for."""
        if not self._is_over:
            self._is_over = True
            self._queue.put(None)
        return self._thread

    def _run(self) -> None:
        try:
            while self._serve():
                pass
        except BaseException:  # a thread has nobody to raise to; the callers learn it from _abandon
            _logger.critical("the writer has died", exc_info=True)
        finally:
            call_on(self._loop, self._abandon)
            self._close()

    def _serve(self) -> bool:
        """Decide one group; tell whether there may be another."""
        group, goes_on = self._take()
        if group:
            try:
                self._decide(group)
            except Exception as exc:  # noqa: BLE001 - the callers get it
                fail(group, exc)
            except BaseException:
                fail(group, closed_error())
                raise
            finally:
                call_on(self._loop, self._settle, group)
            self._checkpoint()
        return goes_on

    def _take(self) -> tuple[list[Request], bool]:
        """Wait for a request and take all that is there; tell whether more may follow."""
        group: list[Request] = []
        request = self._queue.get()
        while request is not None:
            group.append(request)
            if len(group) == self._group_size or self._queue.empty():
                return group, True
            request = self._queue.get()
        return group, False

    def _decide(self, group: Sequence[Request]) -> None:
        for look_up in (False, True):
            self._connection.execute("begin immediate")
            try:
                self._carry_out(group, look_up=look_up)
                self._connection.execute("commit")
            except Exception:  # noqa: BLE001 - the next way tells whose fault it is
                self._roll_back()
            else:
                return
        for request in group:
            self._decide_alone(request)

    def _carry_out(self, group: Sequence[Request], *, look_up: bool) -> None:
        self._log.now = self._now()
        self._log.append([request for request in group if isinstance(request, Append)], look_up=look_up)
        for request in group:
            if isinstance(request, Work):
                self._separately(request)
                self._log.pages += _PAGES_PER_WORK

    def _decide_alone(self, request: Request) -> None:
        try:
            self._connection.execute("begin immediate")
            self._carry_out((request,), look_up=True)
            self._connection.execute("commit")
        except Exception as exc:  # noqa: BLE001 - the caller gets it
            self._roll_back()
            request.error = exc

    def _separately(self, work: Work[Any]) -> None:
        """Let *work* fail without the others."""
        work.error = None
        self._connection.execute("savepoint work")
        try:
            work.answer = work.run(self._connection)
        except Exception as exc:
            if not self._connection.in_transaction:
                raise  # SQLite has rolled back everything
            work.error = exc
            self._connection.execute("rollback to work")
            if not isinstance(exc, SessionsError):
                self._log.forget()
        self._connection.execute("release work")

    def _roll_back(self) -> None:
        self._log.forget()
        if self._connection.in_transaction:
            self._connection.execute("rollback")

    def _checkpoint(self) -> None:
        """Move changes into the database. By now the callers are answered, so only the next ones may have to wait."""
        waiting = not self._queue.empty()
        if self._log.pages < self._checkpoint_pages * (_PATIENCE if waiting else 1):
            return
        self._log.pages = 0
        try:
            self._connection.execute("pragma wal_checkpoint(passive)").fetchone()
        except sqlite3.Error:  # nothing is lost; the next one does more
            _logger.warning("a checkpoint failed", exc_info=True)

    def _close(self) -> None:
        try:
            self._connection.close()  # the last connection to the file checkpoints
        except sqlite3.Error:
            _logger.warning("closing failed", exc_info=True)

    def _settle(self, group: Sequence[Request]) -> None:
        done = [request for request in group if request.error is None]
        try:
            self.committed([request for request in done if isinstance(request, Append)])
            for request in done:
                if isinstance(request, Work) and request.after is not None:
                    request.after(request.answer)
        finally:
            settle(group)

    def _abandon(self) -> None:
        """Let nobody wait for a thread that has ended."""
        is_expected, self._is_over = self._is_over, True
        left = self._take_rest()
        fail(left, closed_error())
        settle(left)
        if not is_expected:
            self.ended()

    def _take_rest(self) -> list[Request]:
        rest: list[Request] = []
        while not self._queue.empty():
            request = self._queue.get_nowait()
            if request is not None:
                rest.append(request)
        return rest
