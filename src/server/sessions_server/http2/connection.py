"""One HTTP/2 connection: ``h2`` decides what the protocol says, this does it on a transport.

Every stream is answered in a task of its own. Nothing waits for a client for ever, and no client makes this server work or
remember without measure: see :class:`~sessions_server.http2.limits.Http2Limits` and :mod:`~sessions_server.http2.budget`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final, cast

import attrs
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from sessions_server.connections.farewell import LINGER_SECONDS, Farewell
from sessions_server.connections.places import Guest, Places, cut, is_delivered
from sessions_server.http2.budget import Budget
from sessions_server.http2.frames import MAX_STREAM_ID, PREFACE, Frame, FrameReader, Kind, ViolationError, goaway
from sessions_server.http2.limits import Http2Limits
from sessions_server.http2.sender import Sender
from sessions_server.http2.stream import Answer, Stream, open_stream
from sessions_server.http2.watch import Step, Watch
from sessions_server.observability.logs import logger

_FRAMES_PER_TURN: Final = 64
"""Then others have their turn, too."""
_DEFAULT_WINDOW: Final = 65_535
_ENCODER_TABLE: Final = 4096
_FAREWELL_SECONDS: Final = 30.0
"""So long a client that parts in peace may take to fetch the last of its answers."""
_PING: Final = b"sessions"
NOTICE_SECONDS: Final = 0.1
"""Between telling a client that a connection is about to end, and refusing what it begins on it."""


class _Protocol(H2Connection):
    """Remembers fewer streams that are over than the library would: each takes memory as long as the connection lives."""

    MAX_CLOSED_STREAMS = 1024


def _open_protocol(limits: Http2Limits) -> _Protocol:
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
    protocol.decoder.max_header_list_size = limits.longest_head  # what is in between is read in order to be refused
    protocol.initiate_connection()
    protocol.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams})
    protocol.increment_flow_control_window(limits.window - _DEFAULT_WINDOW)
    protocol.receive_data(PREFACE)
    return protocol


@attrs.define(eq=False)
class Connection(asyncio.Protocol, Guest):
    """Speaks HTTP/2 after the preface, which whoever made it has read.

    ``peers`` is where it is found while it lives, and ``below`` what carries it, if that is not its own transport.
    """

    _answer: Answer
    _limits: Http2Limits
    _peers: set[Connection]
    _places: Places
    _below: asyncio.Transport | None
    _transport: asyncio.Transport = attrs.field(init=False)
    _loop: asyncio.AbstractEventLoop = attrs.field(init=False)
    _h2: _Protocol = attrs.field(init=False)
    _frames: FrameReader = attrs.field(init=False)
    _sender: Sender = attrs.field(init=False)
    _watch: Watch = attrs.field(init=False)
    _timer: asyncio.TimerHandle = attrs.field(init=False)
    _gone: asyncio.Future[None] = attrs.field(init=False)
    _budget: Budget = attrs.field(init=False, factory=Budget)
    _streams: dict[int, Stream] = attrs.field(init=False, factory=dict)
    _tasks: dict[int, asyncio.Task[None]] = attrs.field(init=False, factory=dict)
    _last_id: int = attrs.field(init=False, default=0)
    _is_leaving: bool = attrs.field(init=False, default=False)

    # --- The transport's side -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        limits = self._limits
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._loop = asyncio.get_running_loop()
        self._gone = self._loop.create_future()
        self._h2 = _open_protocol(limits)
        self._frames = FrameReader(limits.frame, limits.longest_head)
        self._sender = Sender(self._h2, self._transport, limits, self._budget, self._streams, self._refuse, self._cut)
        self._watch = Watch(limits, self._loop.time())
        self._timer = self._loop.call_later(self._watch.interval, self._look)
        self._peers.add(self)
        self._places.wait(self)
        self._sender.flush()

    def data_received(self, data: bytes) -> None:
        if not self.is_closed:
            self._watch.hear(self._loop.time())
            self._frames.feed(data)
            self._read_frames()

    def pause_writing(self) -> None:
        self._sender.pause()

    def resume_writing(self) -> None:
        self._sender.resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why makes no difference
        self._lose_all()
        self._timer.cancel()
        self._peers.discard(self)
        self._places.leave(self)
        self._gone.set_result(None)

    # --- What comes in --------------------------------------------------------------------------

    def _read_frames(self) -> None:
        try:
            is_behind = not self._read_some()
        except ViolationError as error:
            self._refuse(error)
        except ProtocolError:
            self._hang_up()  # h2 has put its GOAWAY where it will be sent
        else:
            if is_behind and not self.is_closed:
                self._transport.pause_reading()
                self._loop.call_soon(self._read_on)
            self._sender.flush()

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
                self._act(event)
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

    def _act(self, event: events.Event) -> None:
        match event:
            case events.DataReceived():
                self._receive(event)
            case events.WindowUpdated():
                self._sender.wake()
            case events.RequestReceived():
                self._open(event)
            case events.StreamEnded():
                if (stream := self._streams.get(event.stream_id or 0)) is not None:
                    stream.complete()
            case events.StreamReset():
                if not event.remote_reset:
                    # h2 did it, as a frame came where none may: it costs us what a reset of theirs does.
                    self._budget.resets.spend(self._loop.time())
                self._lose(event.stream_id or 0)
            case events.RemoteSettingsChanged():
                self._take_settings(event)
            case events.PingAckReceived():
                self._watch.is_asked = False
            case _:
                pass  # nothing else changes what is to be done

    def _open(self, event: events.RequestReceived) -> None:
        stream_id = event.stream_id
        assert stream_id is not None
        assert event.headers is not None
        self._last_id = stream_id
        stream = None if self._is_full else open_stream(self._sender, stream_id, event.headers)
        if stream is None:
            self._budget.resets.spend(self._loop.time())
            self._sender.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._places.leave(self)
        self._streams[stream_id] = stream
        task = self._tasks[stream_id] = self._loop.create_task(self._serve(stream))
        task.add_done_callback(partial(self._forget, stream_id))  # a task that is cancelled early never gets to do it

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
        if unused := event.flow_controlled_length - taken:
            self._sender.give_back(event.stream_id, unused)
        if stream is not None and data:
            stream.receive(data)

    def _take_settings(self, event: events.RemoteSettingsChanged) -> None:
        if self._h2.encoder.header_table_size > _ENCODER_TABLE:
            self._h2.encoder.header_table_size = _ENCODER_TABLE  # what the client allows us to remember, we pay for
        for code in event.changed_settings:
            if not isinstance(code, SettingCodes):
                del self._h2.remote_settings[code]
        self._sender.wake()

    # --- Answering ------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._answer(stream)
            if not stream.is_answered:
                raise RuntimeError("a handler gave no answer")
            stream.finish()
            await stream.dismiss()
        except asyncio.CancelledError:
            stream.break_off(ErrorCodes.INTERNAL_ERROR)
            raise
        except ConnectionError:
            stream.break_off(ErrorCodes.INTERNAL_ERROR)
        except Exception:  # noqa: BLE001 - whatever goes wrong is told, and logged
            logger.exception("request failed")
            stream.fail()

    def _forget(self, stream_id: int, _: object) -> None:
        self._streams.pop(stream_id, None)
        self._tasks.pop(stream_id, None)
        self._rest()
        self._close_if_done()

    def _rest(self) -> None:
        """Wait where others may need the place, if nothing is under way."""
        if not self._tasks and self in self._peers:
            self._places.wait(self)

    def _lose(self, stream_id: int) -> None:
        if (stream := self._streams.pop(stream_id, None)) is not None:
            stream.lose()
            self._tasks[stream_id].cancel()

    def _lose_all(self) -> None:
        self._sender.is_closed = True
        for stream_id in list(self._streams):
            self._lose(stream_id)

    # --- The end --------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is read or written."""
        return self._sender.is_closed

    def announce(self) -> None:
        """Tell the client that the server is about to stop; what it has begun by then is still answered."""
        self._sender.flush(goaway(MAX_STREAM_ID, ErrorCodes.NO_ERROR))

    def leave(self) -> None:
        """Take no new requests, and close when those under way are answered."""
        self._is_leaving = True
        self._sender.flush(goaway(self._last_id, ErrorCodes.NO_ERROR))
        self._close_if_done()

    def make_place(self) -> bool:
        if not is_delivered(self._transport, self._below):
            return False
        if self.is_closed or self._transport.is_closing():  # nothing more can be said
            self._peers.discard(self)
            self._cut()
            return True
        self._sender.flush(goaway(self._last_id, ErrorCodes.NO_ERROR))
        farewell = Farewell(bytes, self._places.leaving, self._below)
        self._transport.set_protocol(farewell)
        self.connection_lost(None)
        farewell.connection_made(self._transport)
        return True

    async def wait_until_gone(self) -> None:
        """Wait until the connection is closed."""
        await asyncio.shield(self._gone)

    def cut_off(self) -> None:
        """Cancel what is still being answered."""
        for task in list(self._tasks.values()):
            task.cancel()

    def abort(self) -> None:
        """Close at once, whatever has not been sent."""
        self._lose_all()
        self._cut()

    def _cut(self) -> None:
        cut(self._transport, self._below)

    def _refuse(self, error: ViolationError) -> None:
        self._close(error.code, error.reason)

    def _close(self, code: ErrorCodes, reason: str = "") -> None:
        """Say why, and close."""
        self._sender.flush(goaway(self._last_id, code, reason))
        self._hang_up(_FAREWELL_SECONDS if code == ErrorCodes.NO_ERROR else 0.0)

    def _close_if_done(self) -> None:
        if self._is_leaving and not self._tasks and not self.is_closed:
            self._close(ErrorCodes.NO_ERROR)

    def _hang_up(self, patience: float = 0.0) -> None:
        """Close, but read on for a moment: what is unread when a socket closes takes the last words with it.

        Args:
            patience: How many seconds longer a client may take to fetch the last of its answers.
        """
        if self.is_closed:
            return
        self._sender.flush()
        self._lose_all()
        self._timer.cancel()
        if self._transport.can_write_eof():
            with suppress(OSError):  # the client has broken off, which nobody has noticed yet
                self._transport.write_eof()
            self._linger(self._loop.time() + patience)
        else:
            self._transport.close()  # TLS stays by itself until everything is sent
            self._timer = self._loop.call_later(LINGER_SECONDS + patience, self._cut)

    def _linger(self, until: float) -> None:
        """Close once what was said is on its way and a moment has passed, or when it is *until*."""
        is_over = self._transport.get_write_buffer_size() == 0 or self._loop.time() >= until
        then = self._cut if is_over else partial(self._linger, until)
        self._timer = self._loop.call_later(LINGER_SECONDS, then)

    def _look(self) -> None:
        """Do what time demands."""
        self._timer = self._loop.call_later(self._watch.interval, self._look)
        self._rest()
        match self._watch.look(self._loop.time(), is_busy=bool(self._tasks)):
            case Step.ASK:
                self._h2.ping(_PING)
                self._sender.flush()
            case Step.REFUSE:
                self._close(ErrorCodes.PROTOCOL_ERROR, "too slow")
            case Step.LET_GO:
                self._close(ErrorCodes.NO_ERROR)
            case Step.RETIRE:
                self.announce()
                self._loop.call_later(NOTICE_SECONDS, self.leave)
            case Step.GIVE_UP:
                self.abort()
            case Step.NOTHING:
                pass
