"""The sending half of a connection: whose turn it is, and when bytes go out.

What is written during one turn of the event loop goes out together at its end. Answers that have to wait, because the client
gives them no window or does not read, stand in a queue; each sends one frame and then stands at its end again, so that none
starves. Whoever has had its turn wakes the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import attrs
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from sessions_server.http2.budget import Budget
from sessions_server.http2.frames import ViolationError
from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.stream import Wire

_PENDING: Final = 65_536
_DRIBBLE: Final = 256


@attrs.define(eq=False)
class Sender(Wire):
    """Sends for all streams of one connection.

    Attributes:
        is_closed: Nothing more is sent.
    """

    _h2: H2Connection
    _transport: asyncio.Transport
    _limits: Http2Limits
    _budget: Budget
    _open: Collection[int]
    _refuse: Callable[[ViolationError], None]
    _cut: Callable[[], None]
    is_closed: bool = attrs.field(init=False, default=False)
    _loop: asyncio.AbstractEventLoop = attrs.field(init=False, factory=asyncio.get_running_loop)
    _waiting: dict[int, asyncio.Future[None]] = attrs.field(init=False, factory=dict)
    _is_paused: bool = attrs.field(init=False, default=False)
    _will_flush: bool = attrs.field(init=False, default=False)
    _pending: int = attrs.field(init=False, default=0)

    @property
    def peer(self) -> str | None:
        name = self._transport.get_extra_info("peername")
        return name[0] if isinstance(name, tuple) else None

    def send_headers(self, stream_id: int, headers: list[tuple[str, str]]) -> None:
        self._h2.send_headers(stream_id, headers)
        self._flush_soon()

    def has_room(self, stream_id: int) -> bool:
        return not self._waiting and self._room(stream_id) > 0

    async def turn(self, stream_id: int, want: int) -> int:
        room = 0 if self._waiting else self._room(stream_id)
        while not room:
            room = await self._wait(stream_id)
        if room < min(want, _DRIBBLE):
            self._dribble()
        return room

    def send_data(self, stream_id: int, data: memoryview) -> None:
        self._h2.send_data(stream_id, data)
        self._budget.windows.earn(2)
        self._pending += len(data)
        if self._pending >= _PENDING:
            self.flush()
        else:
            self._flush_soon()
        if self._waiting:
            self.wake()

    def end(self, stream_id: int) -> None:
        self._h2.end_stream(stream_id)
        self._flush_soon()

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        self._h2.reset_stream(stream_id, code)
        self._flush_soon()

    def give_back(self, stream_id: int, size: int) -> None:
        if not self.is_closed:
            self._h2.acknowledge_received_data(size, stream_id)
            self._flush_soon()

    def pause(self) -> None:
        """Send no data: the client does not read what is there."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on."""
        self._is_paused = False
        self.wake()

    def wake(self) -> None:
        """Give its turn to the first that can use it."""
        for stream_id, future in self._waiting.items():
            if not future.done() and self._room(stream_id):
                future.set_result(None)
                return

    def flush(self, last_words: bytes = b"") -> None:
        """Hand what there is to the transport."""
        self._will_flush, self._pending = False, 0
        if self.is_closed:
            return
        if data := self._h2.data_to_send() + last_words:
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > self._limits.backlog:
                self.is_closed = True
                self._cut()  # it does not read, so it cannot be told

    async def _wait(self, stream_id: int) -> int:
        """Wait until it is the stream's turn; return what room there is then, perhaps none."""
        if stream_id not in self._open or self.is_closed:
            raise ConnectionResetError("the client is gone")
        future = self._waiting[stream_id] = self._loop.create_future()
        self.wake()
        is_woken = False
        try:
            async with asyncio.timeout(self._limits.slow_write):
                await future
            is_woken = True
        except TimeoutError:
            raise ConnectionResetError("the client makes no room for its answer") from None
        finally:
            del self._waiting[stream_id]
            if not is_woken:
                self.wake()  # it may have been given its turn nevertheless
        return self._room(stream_id)

    def _room(self, stream_id: int) -> int:
        """Return how much the stream may send now."""
        if self._is_paused or self.is_closed or stream_id not in self._open:
            return 0
        return max(min(self._h2.local_flow_control_window(stream_id), self._limits.frame), 0)

    def _dribble(self) -> None:
        try:
            self._budget.dribbles.spend(self._loop.time())
        except ViolationError as error:
            self._refuse(error)
            raise ConnectionResetError(error.reason) from None

    def _flush_soon(self) -> None:
        if not self._will_flush:
            self._will_flush = True
            self._loop.call_soon(self.flush)
