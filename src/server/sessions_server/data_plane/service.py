"""The data plane: from a request to its answer, whatever version of HTTP brings it.

::

    GET   /v1/streams/{stream}/records/tail     where the stream ends
    GET   /v1/streams/{stream}/records          read: one answer, a session, or events
    POST  /v1/streams/{stream}/records          append: one batch, or a session

S2's other routes manage basins, streams and tokens. Here sessions do that: those routes say that they are not implemented.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Final, TypeVar

import attrs
from multidict import CIMultiDict

from sessions_core.domain.rate import Taken
from sessions_server import cors
from sessions_server.bodies import drop, without_body
from sessions_server.data_plane.access import Admission
from sessions_server.data_plane.answers import JSON, PROTOBUF, Answer, refusal
from sessions_server.data_plane.appending import Appender
from sessions_server.data_plane.credentials import API_PATH
from sessions_server.data_plane.failures import NOT_IMPLEMENTED, S2Error, failure_of, is_internal
from sessions_server.data_plane.gate import Gate, Visitor
from sessions_server.data_plane.json_forms import (
    decode_append_input,
    encode_append_ack,
    encode_read_batch,
    encode_tail,
    is_base64,
)
from sessions_server.data_plane.observed import ObservedExchange
from sessions_server.data_plane.protobuf import decode_append_input as decode_append_message
from sessions_server.data_plane.protobuf import encode_append_ack as encode_ack_message
from sessions_server.data_plane.protobuf import encode_read_batch as encode_batch_message
from sessions_server.data_plane.reading import Reader
from sessions_server.data_plane.records import AppendInput, Operation
from sessions_server.data_plane.requests import (
    Form,
    ReadQuery,
    answer_form,
    check_encryption,
    form_of,
    parse_segment,
    read_body,
)
from sessions_server.data_plane.sessions import LongAnswers
from sessions_server.exchange import Exchange
from sessions_server.limits.unfinished_bytes import Share
from sessions_server.observability.logs import CLIENT_LEFT, log_request, logger
from sessions_server.observability.request_ids import REQUEST_ID
from sessions_server.problems import TooManyRequestsError
from sessions_server.route import Context

T = TypeVar("T")
PREFIX: Final = API_PATH + "/"
RECORDS: Final = "/v1/streams/{stream}/records"
TAIL: Final = RECORDS + "/tail"
MANAGEMENT: Final = ("streams", "basins", "access-tokens", "metrics", "locations")
"""What S2's other routes begin with."""


@attrs.define(eq=False)
class _Asked:
    """A request on its way.

    Attributes:
        route: For the metrics.
        taken: The permit that was taken for it, if there is a limit.
    """

    exchange: ObservedExchange
    route: str = "none"
    is_stream: bool = False
    taken: Taken | None = None


class DataPlane:
    """Answers the requests of S2's clients."""

    def __init__(self, context: Context) -> None:
        sessions = context.sessions
        self._context = context
        self._gate = Gate(context.auth, context.direct_tokens, context.limits, context.streams, sessions.clock)
        self._admission = Admission(context.auth, context.direct_tokens, sessions.sessions)
        self._appender = Appender(sessions.channels, sessions.sessions, sessions.clock)
        self._reader = Reader(sessions.channels)
        self._long = LongAnswers(
            self._gate,
            self._admission,
            self._appender,
            self._reader,
            context.streams,
            context.config.slow_write.total_seconds(),
            context.config.body_timeout.total_seconds(),
        )

    @staticmethod
    def owns(raw_path: str) -> bool:
        """Tell whether a path is one of ours."""
        return raw_path.startswith(PREFIX)

    async def handle(self, exchange: Exchange) -> None:
        """Answer *exchange*. Whatever goes wrong before the answer has begun becomes an answer."""
        request_id = self._context.request_ids.take(exchange.headers.get(REQUEST_ID.lower()))
        asked, started = _Asked(ObservedExchange(exchange, request_id)), perf_counter()
        try:
            await self._answer_or_explain(asked)
        finally:
            self._record(asked, perf_counter() - started)

    async def _answer_or_explain(self, asked: _Asked) -> None:
        try:
            answer = await self._answer(asked)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is answered, and logged if it is our fault
            answer = self._explain(error, asked.exchange.request_id)
        if answer is not None:
            await self._with_limit(answer, asked.taken).send(asked.exchange)

    def _with_limit(self, answer: Answer, taken: Taken | None) -> Answer:
        """Return *answer* saying, too, where the limit stands that its request was counted for."""
        if taken is None or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return answer
        headers = CIMultiDict(answer.headers)
        self._context.limits.permits.show(taken, headers)
        return attrs.evolve(answer, headers=headers)

    def _record(self, asked: _Asked, seconds: float) -> None:
        exchange, context = asked.exchange, self._context
        status = CLIENT_LEFT if exchange.status is None else exchange.status
        context.metrics.request(asked.route, status, None if asked.is_stream else seconds)
        if context.config.access_log:
            log_request(exchange.request_id, exchange.method, exchange.path, status, seconds)

    async def _answer(self, asked: _Asked) -> Answer | None:
        """Return the answer; None if it has been sent."""
        exchange = asked.exchange
        if exchange.method == "OPTIONS":
            return _preflight(exchange)
        segments = exchange.path.removeprefix(PREFIX).split("/")
        match exchange.method, segments:
            case "GET", ["streams", stream, "records", "tail"]:
                asked.route = TAIL
                return await _without_body(exchange, partial(self._tail, asked, parse_segment(stream)))
            case "GET", ["streams", stream, "records"]:
                asked.route = RECORDS
                return await _without_body(exchange, partial(self._read, asked, parse_segment(stream)))
            case "POST", ["streams", stream, "records"]:
                asked.route = RECORDS
                return await self._append(asked, parse_segment(stream))
            case _, [first, *_] if first in MANAGEMENT:
                await self._enter(asked)
                raise S2Error.of(NOT_IMPLEMENTED, "Basins, streams and tokens are not managed here; sessions are")
            case _:
                raise S2Error(404, {"code": "not_found", "message": "There is nothing here"})

    async def _enter(self, asked: _Asked) -> Visitor:
        visitor = await self._gate.enter(asked.exchange)
        asked.taken = visitor.taken
        return visitor

    async def _tail(self, asked: _Asked, stream: str) -> Answer:
        await self._enter(asked)
        grant = await self._admission.admit(asked.exchange, stream, Operation.CHECK_TAIL)
        return Answer(body=encode_tail(await self._reader.tail(grant)))

    async def _read(self, asked: _Asked, stream: str) -> Answer | None:
        exchange = asked.exchange
        headers = exchange.headers
        visitor = await self._enter(asked)
        check_encryption(headers)
        query = ReadQuery.parse(exchange.query)
        if form_of(headers.get("content-type")) is Form.SESSION:
            asked.is_stream = True
            await self._long.read(exchange, visitor, stream, query)
            return None
        as_base64 = is_base64(headers.get("s2-format"))
        if form_of(headers.get("accept")) is Form.EVENTS:
            asked.is_stream = True
            await self._long.events(exchange, visitor, stream, query, as_base64=as_base64)
            return None
        grant = await self._admission.admit(exchange, stream, Operation.READ)
        piece = await self._reader.read(grant, query, self._gate.holding_open(visitor, grant.channel))
        records = await self._admission.shown(exchange, stream, piece.records)
        if answer_form(headers) is Form.PROTOBUF:
            return Answer(body=encode_batch_message(records, piece.tail), content_type=PROTOBUF)
        return Answer(body=encode_read_batch(records, piece.tail, as_base64=as_base64))

    async def _append(self, asked: _Asked, stream: str) -> Answer | None:
        exchange = asked.exchange
        visitor = await self._enter(asked)
        check_encryption(exchange.headers)
        if form_of(exchange.headers.get("content-type")) is Form.SESSION:
            asked.is_stream = True
            await self._long.append(exchange, visitor, stream)
            return None
        with self._gate.share_of(visitor) as share:
            given = await _read_append(exchange, self._context.config.body_timeout, share)
            grant = await self._admission.admit(exchange, stream, given.operation)
            ack = await self._appender.append(grant, given)
        if answer_form(exchange.headers) is Form.PROTOBUF:
            return Answer(body=encode_ack_message(ack), content_type=PROTOBUF)
        return Answer(body=encode_append_ack(ack))

    @staticmethod
    def _explain(error: Exception, request_id: str) -> Answer:
        failure = failure_of(error)
        if is_internal(failure):
            logger.error("request failed", exc_info=error, extra={"request_id": request_id})
        return refusal(failure, error.headers if isinstance(error, TooManyRequestsError) else {})


async def _without_body(exchange: Exchange, handle: Callable[[], Awaitable[T]]) -> T:
    """Return what *handle* does, and keep nothing of a body that nobody reads."""
    if not exchange.is_body_complete:
        return await without_body(exchange.body(), handle)
    await drop(exchange.body())
    return await handle()


async def _read_append(exchange: Exchange, patience: timedelta, share: Share) -> AppendInput:
    headers = exchange.headers
    if form_of(headers.get("content-type")) is Form.PROTOBUF:
        return decode_append_message(await read_body(exchange, patience, share))
    as_base64 = is_base64(headers.get("s2-format"))
    return decode_append_input(await read_body(exchange, patience, share), as_base64=as_base64)


def _preflight(exchange: Exchange) -> Answer:
    """Answer a browser that asks whether it may ask."""
    wanted = exchange.headers.get("access-control-request-headers", "")
    headers = {"access-control-allow-methods": cors.METHODS, "access-control-max-age": cors.MAX_AGE}
    if wanted and wanted.isascii():
        headers["access-control-allow-headers"] = wanted
    return Answer(body=b"{}", content_type=JSON, headers=headers)
