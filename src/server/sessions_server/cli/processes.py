"""Several server processes that share one port.

How this works
--------------
The parent listens and serves nothing. Its children inherit the listening sockets, so whichever is free takes the next
connection, and one that waits to be taken survives the death of any child. The first child starts alone, because it may make
the first environment and says where the server listens; a child that cannot start at all ends the whole server, one that dies
later is started again, after a pause that grows while it keeps dying.

A child that loses its parent, however that ended, notices it at a pipe and stops by itself.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import attrs

from sessions_core.errors import InvalidError, SessionsError
from sessions_server.cli import streams
from sessions_server.cli.signals import SIGNALS
from sessions_server.cli.text import to_json

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
STEADY_SECONDS: Final = 30.0
"""A child that has lived for so long was no failure from its start."""
BACKLOG: Final = 128


@attrs.frozen(kw_only=True)
class Share:
    """What one child has of the whole.

    Attributes:
        sockets: Where it takes connections.
        index: Which one it is, from 0 on, also after it was started again.
        is_first: It tells people where the server listens.
        ready: To be called when it takes connections.
        parent: A pipe that ends when the parent does.
        folder: What the children share; gone with the parent.
    """

    sockets: Sequence[socket.socket]
    index: int
    is_first: bool
    ready: Callable[[], None]
    parent: int
    folder: Path


Serve = Callable[[Share], None]


@attrs.define(eq=False)
class Child:
    """One of the processes, over all its lives.

    Attributes:
        pid: 0 while it does not live.
        pipe: Where it is going to say that it takes connections; None once it has, or has ended.
        due: When it is to be started again, by the monotonic clock.
        is_ready: Whether it takes connections.
        has_served: Whether it has ever done so, in any of its lives.
    """

    index: int
    pid: int = 0
    pipe: int | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0
    is_ready: bool = False
    has_served: bool = False

    def said(self, word: bytes) -> None:
        """Take note of what came through its pipe: a word, or nothing because it has ended."""
        self.is_ready = word != b""
        self.has_served |= self.is_ready
        self._close_pipe()

    def died(self, now: float) -> None:
        """Take note of its death, and choose when it is started again."""
        self.deaths = 1 if now - self.started > STEADY_SECONDS else self.deaths + 1
        self.due = now + min(FIRST_PAUSE * (1 << min(self.deaths - 1, 16)), LONGEST_PAUSE)
        self.pid, self.is_ready = 0, False
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self.pipe is not None:
            os.close(self.pipe)
        self.pipe = None


def bind(host: str, port: int) -> list[socket.socket]:
    """Listen on *port* of every address that *host* has; return the sockets, which children may inherit.

    Raises:
        InvalidError: The address cannot be had.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Port 0 is chosen once, for all addresses.
            listening.bind((address[0], port or (sockets[0].getsockname()[1] if sockets[1:] else 0), *address[2:]))
            listening.listen(BACKLOG)
            listening.setblocking(False)
    except OSError as error:
        for listening in sockets:
            listening.close()
        raise InvalidError("--host/--port", f"cannot be listened on: {error.strerror}; choose another one") from error
    return sockets


@attrs.define(eq=False)
class Family:
    """A parent and its children.

    Attributes:
        serve: What a child does from its start to its end.
        folder: What the children share.
    """

    serve: Serve
    sockets: Sequence[socket.socket]
    count: int
    folder: Path
    as_json: bool
    _children: list[Child] = attrs.field(init=False)
    _is_stopping: bool = attrs.field(init=False, default=False)
    _has_failed: bool = attrs.field(init=False, default=False)
    _signals: tuple[int, int] = attrs.field(init=False, factory=os.pipe)
    _life: tuple[int, int] = attrs.field(init=False, factory=os.pipe)

    def __attrs_post_init__(self) -> None:
        self._children = [Child(index) for index in range(self.count)]

    def run(self) -> int:
        """Start the children, keep them alive, and end them on SIGTERM or SIGINT; return 0 if all ended cleanly."""
        self._listen_to_signals()
        for child in self._children:
            if not self._is_stopping:
                self._start(child)
            while child.pid and not child.is_ready:
                self._obey(self._hear(None))
        if not self._is_stopping:
            self._say({"event": "processes", "pids": self._pids}, f"processes: {', '.join(map(str, self._pids))}")
        while self._pids or not self._is_stopping:
            self._obey(self._hear(self._seconds_to_next_start()))
            self._start_those_due()
        return int(self._has_failed)

    @property
    def _pids(self) -> list[int]:
        return [child.pid for child in self._children if child.pid]

    def _say(self, event: dict[str, object], sentence: str) -> None:
        with suppress(OSError):  # whoever read it may have gone; that is no reason to end
            print(to_json(event) if self.as_json else sentence, flush=True)

    def _listen_to_signals(self) -> None:
        for end in self._signals:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._signals[1], warn_on_full_buffer=False)
        for number in (*SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def _hear(self, patience: float | None) -> set[int]:
        """Wait at most *patience* seconds for a signal or for a child that is ready; return the signals that have come."""
        starting = {child.pipe: child for child in self._children if child.pipe is not None}
        heard, _, _ = select.select([self._signals[0], *starting], [], [], patience)
        for pipe in starting.keys() & set(heard):
            starting[pipe].said(os.read(pipe, 1))
        try:
            return set(os.read(self._signals[0], 4096))
        except BlockingIOError:
            return set()

    def _obey(self, signals: set[int]) -> None:
        for number in signals & set(SIGNALS):
            self._stop(number)
        self._reap()

    def _stop(self, number: int) -> None:
        """Hand the signal on. A second one ends the children at once, as it does a server of one process."""
        if not self._is_stopping:
            self._say({"event": "stopping"}, "sessions is stopping; a second signal ends it at once")
        self._end_all(number)

    def _end_all(self, number: int) -> None:
        self._is_stopping = True
        for pid in self._pids:
            os.kill(pid, number)

    def _reap(self) -> None:
        for child in self._children:
            if child.pid and (ended := os.waitpid(child.pid, os.WNOHANG))[0]:
                self._note_end(child, os.waitstatus_to_exitcode(ended[1]))

    def _note_end(self, child: Child, code: int) -> None:
        pid, was_starting = child.pid, not child.is_ready
        child.died(time.monotonic())
        if self._is_stopping:
            # One that was told to stop before it could listen has nothing to finish.
            self._has_failed |= code != 0 and not (was_starting and -code in SIGNALS)
        elif not child.has_served:
            self._has_failed = True
            self._end_all(signal.SIGTERM)
        else:
            event = {"event": "process ended", "pid": pid, "code": code}
            self._say(event, f"process {pid} has ended with {code} and is started again")

    def _seconds_to_next_start(self) -> float | None:
        waiting = [child.due for child in self._children if not child.pid]
        return max(min(waiting) - time.monotonic(), 0) if waiting and not self._is_stopping else None

    def _start_those_due(self) -> None:
        for child in self._children:
            if not (child.pid or self._is_stopping) and child.due <= time.monotonic():
                self._start(child)

    def _start(self, child: Child) -> None:
        """Fork a child, and keep the end of a pipe at which it says that it is ready."""
        ready, tell = os.pipe()
        sys.stdout.flush()
        # A signal for the child that comes before it has handlers of its own must not end up in its parent's pipe.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.close(ready)
            self._live(child, tell)
        child.pid, child.pipe, child.started = pid, ready, time.monotonic()
        os.close(tell)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _live(self, child: Child, tell: int) -> NoReturn:
        """Be *child* from here to the end."""
        code = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C at the terminal reaches the parent alone, which hands it on once
            signal.set_wakeup_fd(-1)
            for number in (*SIGNALS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for end in (*self._signals, self._life[1]):
                os.close(end)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            share = Share(
                sockets=self.sockets,
                index=child.index,
                is_first=child.index == 0 and child.deaths == 0,
                ready=lambda: _tell(tell),
                parent=self._life[0],
                folder=self.folder,
            )
            self.serve(share)
            code = 0
        except SessionsError as error:
            streams.tell(str(error))
        except BaseException:  # noqa: BLE001 - nothing may go on as if it were the parent
            traceback.print_exc()
        finally:
            streams.settle()
            os._exit(code)


def _tell(pipe: int) -> None:
    try:
        os.write(pipe, b"1")
    except BrokenPipeError:
        pass  # its parent is gone, which it will notice by itself
    finally:
        os.close(pipe)
