"""An order desk: an aiohttp service with sessions inside. Its routes, tenants and life cycle are its own.

Start it with `python examples/embedded_service.py --port 8080 --data order-desk`. The header `X-Tenant` stands for your
authentication; a sender that may try again sends an `Idempotency-Key`. For any chat id:

    POST /chats/{chat}/messages   {"text": "3 chairs, 1 desk"}      -> {"seq": 0}, the order's number
    POST /chats/{chat}/decisions  {"order": 0, "approve": true}     -> {"seq": 1}
    POST /chats/{chat}/stop                                         -> {"seq": 2}; ends the answer being written
    GET  /chats/{chat}/answers    an event stream that goes on after `?after=` or `Last-Event-ID`
"""

import argparse
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
from aiohttp import web
from aiohttp.typedefs import Handler

from orders import agents, decision
from sessions_adapters.profiles import open_sessions
from sessions_core import Environment, Event, Io, NewSession, PartId, Record, Session, Sessions, errors
from sessions_core.chat import stop_message, user_message

T = TypeVar("T")
SESSIONS = web.AppKey("sessions", Sessions)
STREAMS = web.AppKey("streams", set[anyio.CancelScope])
STATUSES = {
    errors.InvalidError: 400,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.ClosedError: 410,
    errors.RecordTooLargeError: 413,
    errors.UnavailableError: 503,
}
PING_SECONDS = 15
routes = web.RouteTableDef()


@routes.post("/chats/{chat}/messages")
async def post_message(request: web.Request) -> web.Response:
    text = await member(request, "text", str)
    wanted = NewSession(task="orders", external_id=request.match_info["chat"])  # the same one again: the same session
    session = (await request.app[SESSIONS].sessions.create(tenant(request), wanted)).session
    return await append(request, session, user_message(text))


@routes.post("/chats/{chat}/decisions")
async def post_decision(request: web.Request) -> web.Response:
    decided = decision(await member(request, "order", int), approve=await member(request, "approve", bool))
    return await append(request, await find_session(request), decided)


@routes.post("/chats/{chat}/stop")
async def post_stop(request: web.Request) -> web.Response:
    return await append(request, await find_session(request), stop_message())


@routes.get("/chats/{chat}/answers")
async def get_answers(request: web.Request) -> web.StreamResponse:
    after, channel = last_seen(request), (await find_session(request)).channel(Io.OUT)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    with anyio.CancelScope() as scope:  # end_streams cancels it
        request.app[STREAMS].add(scope)
        try:
            async with request.app[SESSIONS].channels.subscribe(channel, after) as reading:
                await response.prepare(request)
                while True:
                    batch = await reading.next(PING_SECONDS)
                    await response.write("".join(map(event, batch.records)).encode() if batch else b": ping\n\n")
        except errors.UnavailableError:
            if not response.prepared:
                raise  # else the stream ends here, and its reader comes back
        finally:
            request.app[STREAMS].discard(scope)
    return response


def event(record: Record) -> str:
    data = record.body.decode() or json.dumps(dict(record.headers))  # one line: bodies are JSON
    return f"id: {record.seq}\nevent: {record.control or 'chunk'}\ndata: {data}\n\n"


def tenant(request: web.Request) -> Environment:
    if not (name := request.headers.get("X-Tenant")):
        raise web.HTTPUnauthorized(text="X-Tenant is missing")
    return Environment(id=name)  # to one tenant the sessions of another do not exist


async def find_session(request: web.Request) -> Session:
    return await request.app[SESSIONS].sessions.get(tenant(request).id, request.match_info["chat"])


async def append(request: web.Request, session: Session, record: dict[str, Any]) -> web.Response:
    key = request.headers.get("Idempotency-Key")
    part_id = PartId(key) if key else None  # the same one again stores nothing and gives the same seq
    appended = await request.app[SESSIONS].channels.append_text(session, Io.IN, json.dumps(record), part_id=part_id)
    return web.json_response({"seq": appended.seq})


async def member(request: web.Request, name: str, kind: type[T]) -> T:
    try:
        value = (await request.json())[name]
    except (ValueError, TypeError, KeyError, RecursionError, web.RequestPayloadError):
        value = None
    if type(value) is not kind:
        raise errors.InvalidError(name, f"must be there, of type {kind.__name__}")
    return value


def last_seen(request: web.Request) -> int | None:
    text = request.query.get("after") or request.headers.get("Last-Event-ID")
    if text and not (text.isdecimal() and len(text) < 16):
        raise errors.InvalidError("after", "must be a seq")
    return int(text) if text else None


@web.middleware
async def errors_to_http(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except errors.SessionsError as error:
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)
        return web.json_response({"error": str(error)}, status=status)
    except web.HTTPException as error:  # no tenant, no such route, a body that is too large
        return web.json_response({"error": error.text}, status=error.status)


def log(event: Event) -> None:
    exception = getattr(event, "exception", None)  # what a task raised: nobody else logs it
    logging.getLogger("desk").log(logging.ERROR if exception else logging.DEBUG, "%s", event, exc_info=exception)


async def end_streams(app: web.Application) -> None:
    for scope in app[STREAMS]:
        scope.cancel()


def build_app(data: Path) -> web.Application:
    async def keep_sessions(app: web.Application) -> AsyncIterator[None]:
        async with open_sessions("embedded", data=data, agents=agents, observer=log) as app[SESSIONS]:
            yield  # and then runs may finish their turn

    app = web.Application(middlewares=[errors_to_http])
    app[STREAMS] = set()
    app.cleanup_ctx.append(keep_sessions)
    app.on_shutdown.append(end_streams)
    app.add_routes(routes)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An order desk with sessions inside.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--data", type=Path, default=Path("order-desk"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    web.run_app(build_app(given.data), host="127.0.0.1", port=given.port, handler_cancellation=True)
