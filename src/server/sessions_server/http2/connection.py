"""One HTTP/2 connection: ``h2`` decides what the protocol says, this does it on a transport.

Every stream is answered by a handler in a task of its own. What is written during one turn of the event loop goes out
together at its end. Nothing waits for a client for ever: see :class:`~sessions_server.http2.limits.Limits`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from sessions_server.data_plane.exchange import Handler
from sessions_server.http2.budget import Budget
from sessions_server.http2.frames import MAX_STREAM_ID, PREFACE, Frame, FrameReader, Kind, ViolationError, goaway
from sessions_server.http2.limits import Limits
from sessions_server.http2.stream import Stream, Wire, open_stream
from sessions_server.http2.watch import Step, Watch
from sessions_server.logs import logger

_FRAMES_PER_TURN: Final = 256
"""Then others have their turn, too."""
_PENDING: Final = 65_536
_DRIBBLE: Final = 256
_DEFAULT_WINDOW: Final = 65_535
_ENCODER_TABLE: Final = 4096
_LINGER_SECONDS: Final = 1.0
_PING: Final = b"sessions"


class _Protocol(H2Connection):
    """Remembers fewer streams that are over than the library would: each takes memory as long as the connection lives."""

    MAX_CLOSED_STREAMS = 1024


def _open_protocol(limits: Limits) -> _Protocol:
    """Return the protocol's state, with what it has to say first.

    The limit on streams is said in a second frame, so that ``h2`` does not hold a client to it that cannot know it yet, which
    would cost it the connection; what is over the limit is refused by :class:`Connection`.
    """
    protocol = _Protocol(H2Configuration(client_side=False, header_encoding=None))
    protocol.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
            SettingCodes.MAX_FRAME_SIZE: limits.frame,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_list,
        },
    )
    protocol.decoder.max_header_list_size = limits.header_list
    protocol.initiate_connection()
    protocol.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams})
    protocol.increment_flow_control_window(limits.window - _DEFAULT_WINDOW)
    protocol.receive_data(PREFACE)
    return protocol


@attrs.define(eq=False)
class Connection(asyncio.Protocol, Wire):
    """Speaks HTTP/2 after the preface, which whoever made it has read.

    Attributes:
        is_closed: Nothing more is read or written.
    """

    _handle: Handler
    _limits: Limits
    _ending: Callable[[], bool]
    _peers: set[Connection]
    is_closed: bool = attrs.field(init=False, default=False)
    _transport: asyncio.Transport = attrs.field(init=False)
    _loop: asyncio.AbstractEventLoop = attrs.field(init=False)
    _h2: _Protocol = attrs.field(init=False)
    _frames: FrameReader = attrs.field(init=False)
    _budget: Budget = attrs.field(init=False, factory=Budget)
    _watch: Watch = attrs.field(init=False)
    _streams: dict[int, Stream] = attrs.field(init=False, factory=dict)
    _tasks: dict[int, asyncio.Task[None]] = attrs.field(init=False, factory=dict)
    _waiting: dict[int, asyncio.Future[None]] = attrs.field(init=False, factory=dict)
    _timer: asyncio.TimerHandle = attrs.field(init=False)
    _gone: asyncio.Future[None] = attrs.field(init=False)
    _last_id: int = attrs.field(init=False, default=0)
    _is_leaving: bool = attrs.field(init=False, default=False)
    _is_paused: bool = attrs.field(init=False, default=False)
    _will_flush: bool = attrs.field(init=False, default=False)
    _pending: int = attrs.field(init=False, default=0)

    # --- The transport's side -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._loop = transport, asyncio.get_running_loop()
        self._gone = self._loop.create_future()
        self._h2 = _open_protocol(self._limits)
        self._frames = FrameReader(self._limits.frame, self._limits.header_list)
        self._watch = Watch(self._limits, self._loop.time())
        self._timer = self._loop.call_later(self._watch.interval, self._look)
        self._peers.add(self)
        self._flush()

    def data_received(self, data: bytes) -> None:
        if not self.is_closed:
            self._watch.hear(self._loop.time())
            self._frames.feed(data)
            self._read_frames()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose_all()
        self._timer.cancel()
        self._peers.discard(self)
        self._gone.set_result(None)

    # --- What comes in --------------------------------------------------------------------------

    def _read_frames(self) -> None:
        try:
            is_behind = not self._read_some()
        except ViolationError as error:
            self.close(error.code, error.reason)
        except ProtocolError:
            self._flush()  # h2 has put its GOAWAY there
            self._hang_up()
        else:
            if is_behind and not self.is_closed:
                self._transport.pause_reading()
                self._loop.call_soon(self._read_on)
            self._flush()

    def _read_some(self) -> bool:
        """Handle the frames that are there, or as many as one turn allows; return whether those were all."""
        now = self._loop.time()
        for _ in range(_FRAMES_PER_TURN):
            frame = self._frames.next()
            if frame is None or self.is_closed:
                self._watch.follow_headers(now, is_in_headers=self._frames.is_in_headers)
                return True
            self._watch.is_greeted = True
            is_late = frame.stream_id <= self._last_id and frame.stream_id not in self._streams
            self._budget.charge(frame, now, is_late=is_late)
            if frame.kind == Kind.GOAWAY:
                self._part(frame)
                continue
            for event in self._h2.receive_data(frame.raw):
                if (act := _ACTIONS.get(type(event))) is not None:
                    act(self, event)
        return False

    def _read_on(self) -> None:
        if not self.is_closed:
            self._transport.resume_reading()
            self._read_frames()

    def _part(self, frame: Frame) -> None:
        """Hear that the client will begin nothing more.

        ``h2`` would take a GOAWAY for the end of everything, but a client that closes in peace still waits for its answers.
        """
        if frame.goaway_code == ErrorCodes.NO_ERROR:
            self._is_leaving = True
            self._close_if_done()
        else:
            self._hang_up()

    def _open(self, event: events.RequestReceived) -> None:
        stream_id = event.stream_id
        assert stream_id is not None
        assert event.headers is not None
        self._last_id = stream_id
        stream = None if self._is_full else open_stream(self, stream_id, event.headers)
        if stream is None:
            self._budget.resets.spend(self._loop.time())
            self.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._streams[stream_id] = stream
        self._tasks[stream_id] = self._loop.create_task(self._serve(stream))

    @property
    def _is_full(self) -> bool:
        """Whether nothing more can be begun. Requests that the client gave up may take a moment to end."""
        limit = self._limits.streams
        return self._is_leaving or len(self._streams) >= limit or len(self._tasks) >= 2 * limit

    def _receive(self, event: events.DataReceived) -> None:
        assert event.stream_id is not None
        assert event.flow_controlled_length is not None
        data = event.data or b""
        stream = self._streams.get(event.stream_id)
        taken = 0 if stream is None else len(data)
        if padding := event.flow_controlled_length - taken:
            self.give_back(event.stream_id, padding)
        if stream is not None and data:
            stream.receive(data)

    def _complete(self, event: events.StreamEnded) -> None:
        if (stream := self._streams.get(event.stream_id or 0)) is not None:
            stream.complete()

    def _reset_by_peer(self, event: events.StreamReset) -> None:
        self._lose(event.stream_id or 0)

    def _take_settings(self, event: events.RemoteSettingsChanged) -> None:
        if self._h2.encoder.header_table_size > _ENCODER_TABLE:
            self._h2.encoder.header_table_size = _ENCODER_TABLE  # what the client allows us to remember, we pay for
        for code in event.changed_settings:
            if not isinstance(code, SettingCodes):
                del self._h2.remote_settings[code]
        self._wake()

    def _take_window(self, _: events.WindowUpdated) -> None:
        self._wake()

    def _take_pong(self, _: events.PingAckReceived) -> None:
        self._watch.is_asked = False

    # --- Answering ------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._handle(stream)
            if not stream.is_answered:
                raise RuntimeError("a handler gave no answer")
            stream.finish()
        except asyncio.CancelledError:
            stream.break_off(ErrorCodes.INTERNAL_ERROR)
            raise
        except ConnectionError:
            stream.break_off(ErrorCodes.INTERNAL_ERROR)
        except Exception:
            logger.exception("request failed")
            self._fail(stream)
        finally:
            self._streams.pop(stream.id, None)
            self._tasks.pop(stream.id, None)
            self._close_if_done()

    def _fail(self, stream: Stream) -> None:
        if stream.is_open and not stream.is_answered:
            stream.answer(500, {"content-length": "0"}.items())
            stream.finish()
        else:
            stream.break_off(ErrorCodes.INTERNAL_ERROR)

    def _lose(self, stream_id: int) -> None:
        if (stream := self._streams.pop(stream_id, None)) is not None:
            stream.lose()
            self._tasks[stream_id].cancel()

    def _lose_all(self) -> None:
        self.is_closed = True
        for stream_id in list(self._streams):
            self._lose(stream_id)

    @property
    def is_ending(self) -> bool:
        return self._ending()

    def send_headers(self, stream_id: int, headers: list[tuple[str, str]]) -> None:
        self._h2.send_headers(stream_id, headers)
        self._flush_soon()

    async def turn(self, stream_id: int, want: int) -> int:
        room = 0 if self._waiting else self._room(stream_id)
        while not room:
            room = await self._wait(stream_id)
        if room < min(want, _DRIBBLE):
            self._dribble()
        return room

    async def _wait(self, stream_id: int) -> int:
        """Wait until it is the stream's turn; return what room there is then, perhaps none."""
        if stream_id not in self._streams:
            raise ConnectionResetError("the client is gone")
        future = self._waiting[stream_id] = self._loop.create_future()
        self._wake()
        is_woken = False
        try:
            async with asyncio.timeout(self._limits.stall):
                await future
            is_woken = True
        except TimeoutError:
            raise ConnectionResetError("the client makes no room for its answer") from None
        finally:
            del self._waiting[stream_id]
            if not is_woken:
                self._wake()  # it may have been given its turn nevertheless
        return self._room(stream_id)

    def _room(self, stream_id: int) -> int:
        """Return how much the stream may send now."""
        if self._is_paused or stream_id not in self._streams:
            return 0
        return max(min(self._h2.local_flow_control_window(stream_id), self._limits.frame), 0)

    def _wake(self) -> None:
        """Give its turn to the first that can use it; it passes it on when it has sent a piece."""
        for stream_id, future in self._waiting.items():
            if not future.done() and self._room(stream_id):
                future.set_result(None)
                return

    def _dribble(self) -> None:
        try:
            self._budget.dribbles.spend(self._loop.time())
        except ViolationError as error:
            self.close(error.code, error.reason)
            raise ConnectionResetError(error.reason) from None

    def send_data(self, stream_id: int, data: memoryview) -> None:
        self._h2.send_data(stream_id, data)
        self._budget.windows.earn(2)
        self._pending += len(data)
        if self._pending >= _PENDING:
            self._flush()
        else:
            self._flush_soon()
        if self._waiting:
            self._wake()

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

    def _flush_soon(self) -> None:
        if not self._will_flush:
            self._will_flush = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._will_flush, self._pending = False, 0
        if self.is_closed:
            return
        if data := self._h2.data_to_send():
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > self._limits.backlog:
                self.abort()  # it does not read, so it cannot be told

    # --- The end --------------------------------------------------------------------------------

    def announce(self) -> None:
        """Tell the client that the server is about to stop; what it has begun by then is still answered."""
        self._say_goodbye(MAX_STREAM_ID, ErrorCodes.NO_ERROR)

    def leave(self) -> None:
        """Take no new requests, and close when those under way are answered."""
        self._is_leaving = True
        self._say_goodbye(self._last_id, ErrorCodes.NO_ERROR)
        self._close_if_done()

    async def wait_until_gone(self) -> None:
        """Wait until the connection is closed."""
        await asyncio.shield(self._gone)

    def cut_off(self) -> None:
        """Cancel what is still being answered."""
        for task in list(self._tasks.values()):
            task.cancel()

    def close(self, code: ErrorCodes, reason: str = "") -> None:
        """Say why, and close."""
        self._say_goodbye(self._last_id, code, reason)
        self._hang_up()

    def abort(self) -> None:
        """Close at once, whatever has not been sent."""
        self._lose_all()
        self._transport.abort()

    def _say_goodbye(self, last_id: int, code: ErrorCodes, reason: str = "") -> None:
        self._flush()
        if not self.is_closed:
            self._transport.write(goaway(last_id, code, reason))

    def _close_if_done(self) -> None:
        if self._is_leaving and not self._tasks and not self.is_closed:
            self.close(ErrorCodes.NO_ERROR)

    def _hang_up(self) -> None:
        """Close, but read on for a moment: what is unread when a socket closes takes the last words with it."""
        if self.is_closed:
            return
        self._lose_all()
        self._timer.cancel()
        self._timer = self._loop.call_later(_LINGER_SECONDS, self._transport.abort)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _look(self) -> None:
        """Do what time demands."""
        self._timer = self._loop.call_later(self._watch.interval, self._look)
        match self._watch.look(self._loop.time(), is_busy=bool(self._tasks)):
            case Step.ASK:
                self._h2.ping(_PING)
                self._flush()
            case Step.REFUSE:
                self.close(ErrorCodes.PROTOCOL_ERROR, "too slow")
            case Step.LET_GO:
                self.close(ErrorCodes.NO_ERROR)
            case Step.GIVE_UP:
                self.abort()
            case Step.NOTHING:
                pass


_ACTIONS: Final[Mapping[type[events.Event], Callable[[Connection, Any], None]]] = {
    events.RequestReceived: Connection._open,
    events.DataReceived: Connection._receive,
    events.StreamEnded: Connection._complete,
    events.StreamReset: Connection._reset_by_peer,
    events.RemoteSettingsChanged: Connection._take_settings,
    events.WindowUpdated: Connection._take_window,
    events.PingAckReceived: Connection._take_pong,
}
