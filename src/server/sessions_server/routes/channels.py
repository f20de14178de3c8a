"""Channels: append, drain, subscribe, and credentials for direct writers."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from aiohttp import web

from sessions_core.domain.channel import Io, data_record, sanitise_input
from sessions_core.domain.direct import Tenure
from sessions_core.domain.ids import PartId
from sessions_core.domain.session import Session
from sessions_core.errors import InvalidError
from sessions_core.ports.direct_writes import DirectWrites, WriteCredentials
from sessions_server import cors
from sessions_server.access import may_have_session_token
from sessions_server.bodies import decode_text
from sessions_server.data_plane.credentials import SignedDirectWrites
from sessions_server.epochs import read_epoch
from sessions_server.observability.request_ids import REQUEST_ID
from sessions_server.problems import ForbiddenError
from sessions_server.protection import PROTECTION
from sessions_server.route import JSON, UNSTORED, Call, respond
from sessions_server.sse import (
    DONE,
    Pace,
    Reading,
    Sink,
    encode_frames,
    encode_frames_without_tokens,
    has_tokens,
    parse_last_event_id,
    parse_window,
    pump_or_explain,
    without_tokens,
)
from sessions_server.wire.responses import Initialized, record_list
from sessions_server.wire.values import MAX_NAME, check_text

MAX_APPEND: Final = 1_048_576
PART_HEADER: Final = "X-Part-Id"
_HOST: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


async def append(call: Call) -> web.StreamResponse:
    """Append the body, as text, as one record."""
    session = await call.get_session()
    part_id, epoch = read_part(call), read_epoch(call) if call.io is Io.OUT else None
    text = decode_text(await call.read_body(MAX_APPEND))
    await _use_up(call, text, part_id)
    done = await call.sessions.channels.append_text(session, call.io, text, part_id=part_id, epoch=epoch)
    return web.Response(body=b'{"ok":true,"seq":%d}' % done.seq, headers=JSON)


async def _use_up(call: Call, text: str, part_id: PartId | None) -> None:
    """Count the use of a one-time token, but not for a record that will be refused for what it is.

    Raises:
        InvalidError: Nobody can tell what it says.
        RecordTooLargeError: Over the log's limit.
        UnauthenticatedError: The token was used before.
    """
    if call.caller.one_time is not None:
        data_record(sanitise_input(text), part_id or PartId("")).check_size()
        await call.use_up()


def read_part(call: Call) -> PartId | None:
    """Read the part id, if the writer gave one.

    Raises:
        InvalidError: Too long, or no UTF-8.
    """
    text = call.header(PART_HEADER)
    if not text:
        return None
    return PartId(check_text(text, PART_HEADER, MAX_NAME))


async def records(call: Call) -> web.StreamResponse:
    """Return what is in a channel now, without waiting."""
    channel = await call.channel()
    batch = await call.sessions.channels.records(channel, call.query.start, call.query.limit)
    hides = has_tokens(batch) and (await _hides_tokens(call) or not await _lasts(call))
    return respond(record_list(without_tokens(batch) if hides else batch))


async def _hides_tokens(call: Call) -> bool:
    """Tell whether session tokens in the records are not for this reader."""
    return call.io is Io.OUT and not await may_have_session_token(call)


async def _lasts(call: Call) -> bool:
    return await call.context.auth.still_lasts(call.header("Authorization"))


async def subscribe(call: Call) -> web.StreamResponse:
    """Stream a channel's records as they come."""
    config = call.context.config
    pace = Pace(
        window=parse_window(call.header("Timeout-Seconds"), config.subscribe_window.total_seconds()),
        ping=config.ping_interval.total_seconds(),
        slow_write=config.slow_write.total_seconds(),
    )
    after = parse_last_event_id(call.header("Last-Event-ID"))
    peek = call.io is Io.OUT and call.header("X-Peek-Settled") == "1"
    channel = await call.channel()
    with call.holding_stream(channel):
        async with call.sessions.channels.subscribe(channel, after, peek_settled=peek) as reading:
            return await _stream(call, reading, pace, _stream_headers(call, reading.gap, settled=reading.settled))


async def head(call: Call) -> web.StreamResponse:
    """Answer HEAD on a channel; the number is a relic."""
    await call.channel()
    return web.Response(headers={**_SSE, "X-Last-Chunk-Index": "0"})


_SSE: Final = {
    **PROTECTION,
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Stream-Version": "v2",
    "Access-Control-Expose-Headers": "*",
}


def _stream_headers(call: Call, gap: int | None, *, settled: bool) -> dict[str, str]:
    headers = {**_SSE, REQUEST_ID: call.request_id, "Server": "sessions"}
    if gap is not None:
        headers["X-Session-Gap"] = str(gap)
    if settled:
        headers["X-Session-Settled"] = "true"
    return headers


async def _stream(call: Call, reading: Reading, pace: Pace, headers: dict[str, str]) -> web.StreamResponse:
    """Send headers at once, then frames until the reading ends, its window passes, or the server stops.

    A stream does not outlive the credential that opened it either: its reader has to come back with a fresh one.
    """
    hides = await _hides_tokens(call)
    encode, may_see_tokens = (encode_frames_without_tokens, None) if hides else (encode_frames, partial(_lasts, call))
    response = web.StreamResponse(headers=headers)
    cors.admit(call.header("Origin"), response.headers)
    call.begun = response
    await response.prepare(call.request)
    transport = call.request.transport
    if transport is None:
        raise ConnectionResetError
    sink = Sink(response, call.request.writer, transport, pace.slow_write)
    last = DONE
    try:
        with call.open_stream():
            last = await pump_or_explain(reading, sink, pace, encode, may_see_tokens)
        await sink.write(last)
        await response.write_eof()
    except ConnectionError:
        if not transport.is_closing():
            raise
        # The reader has left. Raised, this would be logged as a failure; returned, aiohttp notices it and is silent.
    return response


async def initialize(call: Call) -> web.StreamResponse:
    """Hand out credentials for writing the channel without us."""
    issuer = call.sessions.direct_writes or _own_direct_writes(call)
    if not call.caller.is_secret and not issuer.is_scoped:
        raise ForbiddenError("This server's channel log cannot limit a session token to one channel")
    channel = await call.channel()
    known = await call.find_session()
    session = None if known is None else await call.sessions.sessions.get(call.environment_id, known.id)
    if session is not None and (refusal := session.refusal(call.sessions.clock.now())):
        raise refusal
    credentials = await issuer.issue(channel, tenure=await _tenure(call, session), ends_at=call.caller.ends_at)
    await call.confirm()
    return respond(Initialized(version="v2"), 202, {**UNSTORED, **_credential_headers(credentials)})


def _own_direct_writes(call: Call) -> DirectWrites:
    """Return what issues credentials for our own data plane, where the log has none to give."""
    context = call.context
    return SignedDirectWrites(
        tokens=context.direct_tokens,
        address=context.config.public_url or _address_asked(call.request),
        lifetime=context.config.direct_token_lifetime,
        counted_as=call.caller.counted_as,
    )


def _address_asked(request: web.BaseRequest) -> str:
    """Return the address by which the request came.

    Raises:
        InvalidError: Its ``Host`` is none.
    """
    if _HOST.fullmatch(request.host) is None:
        raise InvalidError("Host", "must be that of this server")
    return f"{request.scheme}://{request.host}"


async def _tenure(call: Call, session: Session | None) -> Tenure:
    """Return how long the current run of *session* may write."""
    if session is None or session.current_run_id is None:
        return Tenure.of(session)
    return Tenure.of(session, await call.sessions.sessions.get_run(call.environment_id, session.current_run_id))


def _credential_headers(credentials: WriteCredentials) -> dict[str, str]:
    return {
        "X-S2-Access-Token": credentials.token,
        "X-S2-Basin": credentials.basin,
        "X-S2-Stream-Name": credentials.stream,
        "X-S2-Endpoint": credentials.endpoint,
        "X-S2-Flush-Interval-Ms": str(credentials.flush_interval_ms),
        "X-S2-Max-Retries": str(credentials.max_retries),
    }
