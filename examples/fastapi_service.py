"""The order desk of `embedded_service.py` with FastAPI: the same agent and the same routes in another frame.

Start it with `python examples/fastapi_service.py --port 8080 --data order-desk`.
"""

import argparse
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, StrictBool, StrictInt
from starlette.exceptions import HTTPException

from orders import agents, decision
from sessions_adapters.profiles import open_sessions
from sessions_core import Environment, Event, Io, NewSession, PartId, Record, Session, Sessions, errors
from sessions_core.chat import stop_message, user_message

STATUSES = {
    errors.InvalidError: 400,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.ClosedError: 410,
    errors.RecordTooLargeError: 413,
    errors.UnavailableError: 503,
}
LOOK_SECONDS = 0.5
PING = ": ping\n\n"
router = APIRouter()


class Message(BaseModel):
    text: str


class Decision(BaseModel):
    order: StrictInt
    approve: StrictBool


class Server(uvicorn.Server):
    """Exits with 0 on a signal. uvicorn waits for open streams, so they look at `should_exit`."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


def sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.state.sessions
    return sessions


def tenant_of(x_tenant: Annotated[str | None, Header()] = None) -> Environment:
    if not x_tenant:
        raise HTTPException(401, "X-Tenant is missing")
    return Environment(id=x_tenant)  # to one tenant the sessions of another do not exist


Desk = Annotated[Sessions, Depends(sessions_of)]
Tenant = Annotated[Environment, Depends(tenant_of)]
Key = Annotated[str | None, Header(alias="Idempotency-Key")]


async def find_session(chat: str, desk: Desk, tenant: Tenant) -> Session:
    return await desk.sessions.get(tenant.id, chat)


async def create_session(chat: str, desk: Desk, tenant: Tenant) -> Session:
    wanted = NewSession(task="orders", external_id=chat)  # the same one again: the same session
    return (await desk.sessions.create(tenant, wanted)).session


Found = Annotated[Session, Depends(find_session)]
Created = Annotated[Session, Depends(create_session)]


@router.post("/chats/{chat}/messages")
async def post_message(message: Message, session: Created, desk: Desk, key: Key = None) -> dict[str, int]:
    return await append(desk, session, user_message(message.text), key)


@router.post("/chats/{chat}/decisions")
async def post_decision(made: Decision, session: Found, desk: Desk, key: Key = None) -> dict[str, int]:
    return await append(desk, session, decision(made.order, approve=made.approve), key)


@router.post("/chats/{chat}/stop")
async def post_stop(session: Found, desk: Desk, key: Key = None) -> dict[str, int]:
    return await append(desk, session, stop_message(), key)


@router.get("/chats/{chat}/answers")
async def get_answers(
    request: Request,
    session: Found,
    after: Annotated[int | None, Query(ge=0, lt=10**15)] = None,
    last_seen: Annotated[int | None, Header(alias="Last-Event-ID", ge=0, lt=10**15)] = None,
) -> StreamingResponse:
    events = follow(request, session, last_seen if after is None else after)
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def follow(request: Request, session: Session, after: int | None) -> AsyncIterator[str]:
    async with sessions_of(request).channels.subscribe(session.channel(Io.OUT), after) as reading:
        yield PING
        while not request.app.state.server.should_exit:
            batch = await reading.next(LOOK_SECONDS)
            yield "".join(map(event, batch.records)) if batch else PING


def event(record: Record) -> str:
    data = record.body.decode() or json.dumps(dict(record.headers))  # one line: bodies are JSON
    return f"id: {record.seq}\nevent: {record.control or 'chunk'}\ndata: {data}\n\n"


async def append(desk: Sessions, session: Session, record: dict[str, Any], key: str | None) -> dict[str, int]:
    part_id = PartId(key) if key else None  # the same one again stores nothing and gives the same seq
    appended = await desk.channels.append_text(session, Io.IN, json.dumps(record), part_id=part_id)
    return {"seq": appended.seq}


async def refuse(_: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)
    return JSONResponse({"error": str(error)}, status)


async def refuse_request(_: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code)


async def refuse_input(_: Request, error: RequestValidationError) -> JSONResponse:
    wrong = error.errors()[0]
    return JSONResponse({"error": f"{wrong['loc'][-1]}: {wrong['msg']}"}, 400)


def log(event: Event) -> None:
    exception = getattr(event, "exception", None)  # what a task raised: nobody else logs it
    logging.getLogger("desk").log(logging.ERROR if exception else logging.DEBUG, "%s", event, exc_info=exception)


def build_app(data: Path) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_sessions("embedded", data=data, agents=agents, observer=log) as sessions:
            yield {"sessions": sessions}  # and then runs may finish their turn

    app = FastAPI(title="Order desk", lifespan=lifespan)
    app.include_router(router)
    app.exception_handler(errors.SessionsError)(refuse)
    app.exception_handler(HTTPException)(refuse_request)
    app.exception_handler(RequestValidationError)(refuse_input)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An order desk with sessions inside.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--data", type=Path, default=Path("order-desk"))
    given = parser.parse_args()
    app = build_app(given.data)  # FastAPI takes a body whole, however large: in production the proxy in front limits it
    server = app.state.server = Server(uvicorn.Config(app, host="127.0.0.1", port=given.port))
    server.run()
