"""The chat page at ``/``, and the few calls by which it gets into sessions without ever seeing a key."""

from __future__ import annotations

import inspect
import re
import secrets
from typing import Final

from aiohttp import web

from sessions_core.domain.access import Action, session_scopes
from sessions_core.domain.session import Session
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import InvalidError, SessionNotFoundError
from sessions_core.services.session_service import NewSession
from sessions_server.auth.tokens import counted_by
from sessions_server.page_files import INDEX
from sessions_server.problems import RouteNotFoundError
from sessions_server.route import UNSTORED, Call, respond
from sessions_server.wire.page import CreatePageSession, CreatePageToken, PageAgent, PageAgents, PageSession

_PREFIX: Final = "page_"
_OURS: Final = re.compile(rf"{_PREFIX}[A-Za-z0-9_-]{{32}}")
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_FILE_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_JSON_HEADERS: Final = {
    **UNSTORED,
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


async def show(call: Call) -> web.StreamResponse:
    """Send a file of the page; at ``/`` the page itself."""
    file = call.context.page.files.get(call.params.get("file", INDEX))
    if file is None:
        raise RouteNotFoundError
    headers = {**_FILE_HEADERS, "ETag": file.etag}
    if file.etag in call.request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, headers={**headers, "Content-Type": file.content_type})


async def list_agents(call: Call) -> web.StreamResponse:
    """List the agents of this process."""
    agents = call.sessions.executor.agents
    rows = [PageAgent(task=name, summary=_summary_of(agents.find(name))) for name in agents.names]
    return respond(PageAgents(agents=rows), headers=_JSON_HEADERS)


async def create(call: Call) -> web.StreamResponse:
    """Create a session whose external id nobody can guess: knowing it is the right to it."""
    body: CreatePageSession = call.body
    if body.task not in call.sessions.executor.agents.names:
        raise InvalidError("task", "must be one of this server's agents")
    name = _PREFIX + secrets.token_urlsafe(24)
    wanted = NewSession(
        task=body.task,
        trigger_config=TriggerConfig({"basePayload": {"chatId": name, "trigger": "preload"}}),
        external_id=name,
    )
    created = await call.sessions.sessions.create(call.environment, wanted)
    return await _let_in(call, created.session, 201)


async def create_token(call: Call) -> web.StreamResponse:
    """Let whoever knows a session of the page into it again. Sessions that others made have no entrance here."""
    body: CreatePageToken = call.body
    if _OURS.fullmatch(body.session) is None:
        raise SessionNotFoundError(body.session)
    session = await call.sessions.sessions.get(call.environment_id, body.session)
    return await _let_in(call, session, 200)


async def _let_in(call: Call, session: Session, status: int) -> web.StreamResponse:
    scopes = (*session_scopes(session.key), f"{Action.ADMIN}:sessions:{session.key}")
    lifetime = call.context.config.public_token_lifetime
    token = await call.context.auth.mint(call.caller, scopes, lifetime, counted_by(scopes))
    return respond(PageSession(id=session.id, external_id=session.key, token=token), status, _JSON_HEADERS)


def _summary_of(task: object) -> str:
    return (inspect.getdoc(task) or "").partition("\n")[0].replace("``", "")
