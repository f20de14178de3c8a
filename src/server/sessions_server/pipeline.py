"""What happens to every request, in the order that docs/reference/http.md states.

Path, method, credential, length, parameters, query, body, permission, then the handler; every failure becomes an answer
by the table in :mod:`~sessions_server.problems`. This is one function instead of a stack of middlewares, because it is
on the way of every append.

aiohttp cancels a handler when its client leaves, which is what ends a subscription. A handler that changes something in
several steps must not be torn in between, so it runs in a task of its own (:attr:`~sessions_server.route.Route.is_undisturbed`)
that goes on as an orphan, and :meth:`Pipeline.settle` waits for the last ones.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Iterable
from functools import partial
from time import perf_counter
from typing import Final

from aiohttp import web

from sessions_core.domain.access import Access
from sessions_core.errors import InvalidError
from sessions_server import cors
from sessions_server.access import authorize, wrong_credential
from sessions_server.bodies import check_length, read_body
from sessions_server.logs import log_request, logger
from sessions_server.page_access import check_sender
from sessions_server.problems import (
    MalformedRequestError,
    MethodNotAllowedError,
    RouteNotFoundError,
    is_internal,
    problem_response,
)
from sessions_server.queries import parse_query
from sessions_server.route import Call, Context, Route
from sessions_server.router import Node, Router, decode_segment
from sessions_server.wire.values import decode_body

REQUEST_ID: Final = "X-Request-Id"
_LONGEST_REQUEST_ID: Final = 128


class Pipeline:
    """Handles requests by a table of routes."""

    def __init__(self, routes: Iterable[Route], context: Context, page_routes: Iterable[Route] = ()) -> None:
        self._router = Router(line for route in routes for line in route.expand())
        self._page = Router(page_routes)
        self._context = context
        self._process = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._changes: set[asyncio.Task[web.StreamResponse]] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer *request*."""
        started = perf_counter()
        call = Call(request, self._context, self._request_id(request))
        try:
            response = await self._answer(call)
        except ConnectionError:
            if request.transport is None or request.transport.is_closing():
                raise
            response = self._explain(call, RuntimeError("a connection broke inside"))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is answered, and logged if it is our fault
            response = self._explain(call, error)
        if not response.prepared:
            headers = response.headers
            headers[REQUEST_ID] = call.request_id
            headers["Server"] = "sessions"
            if not call.is_of_page:
                cors.admit(request.headers.get("Origin"), headers)
        self._record(call, response, started)
        return response

    def refuse(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer what could not be read as a request."""
        started = perf_counter()
        call = Call(request, self._context, self._request_id(request))
        response = problem_response(MalformedRequestError())
        response.headers.update({REQUEST_ID: call.request_id, "Server": "sessions"})
        self._record(call, response, started)
        return response

    async def settle(self, patience: float) -> None:
        """Wait for the changes whose clients have left; after *patience* seconds cancel them."""
        if not self._changes:
            return
        _, busy = await asyncio.wait(self._changes, timeout=patience)
        for task in busy:
            task.cancel()
        if busy:
            logger.error("changes were cut off", extra={"count": len(busy)})
            await asyncio.wait(busy, timeout=patience)

    async def _answer(self, call: Call) -> web.StreamResponse:
        request = call.request
        raw_path = request.rel_url.raw_path
        found = self._router.find(raw_path)
        if found is None:
            return await self._answer_page(call, raw_path)
        node, values = found
        route = node.methods.get(request.method)
        if route is None:
            if request.method == "OPTIONS":
                return cors.preflight(request)
            route = _stand_in(node, request.method)
        call.route = route
        if route.access is not None:
            await self._admit(call, route, route.access, node.names, values)
        return await (self._undisturbed(call, route) if route.is_undisturbed else route.handler(call))

    async def _answer_page(self, call: Call, raw_path: str) -> web.StreamResponse:
        """Answer what may be a path of the chat page: nobody shows a credential, but it is not there for everybody."""
        request = call.request
        found = self._page.find(raw_path) if call.context.page.admits(request) else None
        if found is None:
            return self._redirect(request, raw_path)
        node, values = found
        call.is_of_page = True
        if request.method == "OPTIONS":
            return web.Response(status=204)
        route = call.route = node.methods.get(request.method) or _stand_in(node, request.method)
        call.params = {name: decode_segment(value, name) for name, value in zip(node.names, values, strict=True)}
        if route.decoder is None or route.cap is None:
            return await route.handler(call)
        check_sender(request.headers)
        check_length(request, route.cap)
        call.body = decode_body(await read_body(request, route.cap), route.decoder)
        return await self._undisturbed(call, route)

    async def _undisturbed(self, call: Call, route: Route) -> web.StreamResponse:
        """Run the handler to its end, whether its client waits for it or not."""
        task = asyncio.create_task(self._change(call, route))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(partial(_log_orphan, call.request_id))
            raise

    async def _change(self, call: Call, route: Route) -> web.StreamResponse:
        if route.access is not None:
            await call.use_up()
        return await route.handler(call)

    async def _admit(self, call: Call, route: Route, access: Access, names: tuple[str, ...], values: list[str]) -> None:
        """Find out who calls, read what the route wants to be read, and check that it is allowed."""
        header = call.request.headers.get("Authorization")
        auth = call.context.auth
        caller = call.caller = auth.recall(header) or await auth.authenticate(header)
        if caller.credential not in access.credentials:
            raise wrong_credential(access)
        if route.cap is not None:
            check_length(call.request, route.cap)
        call.params = {name: decode_segment(value, name) for name, value in zip(names, values, strict=True)}
        if "io" in call.params:
            raise InvalidError("io", "must be in or out")
        if route.query is not None:
            call.query = route.query(parse_query(call.request.rel_url.raw_query_string), call.context)
        if route.decoder is not None and route.cap is not None:
            call.body = decode_body(await read_body(call.request, route.cap), route.decoder)
        await authorize(call, access)

    def _redirect(self, request: web.BaseRequest, raw_path: str) -> web.StreamResponse:
        """Lead a path with a trailing slash to the one without, if there is one."""
        target = raw_path.rstrip("/")
        if target == raw_path or self._router.find(target) is None:
            raise RouteNotFoundError
        query = request.rel_url.raw_query_string
        return web.Response(status=301, headers={"Location": f"{target}?{query}" if query else target})

    def _explain(self, call: Call, error: Exception) -> web.StreamResponse:
        if is_internal(error):
            logger.error("request failed", exc_info=error, extra={"request_id": call.request_id})
        route = call.route
        return problem_response(
            error,
            refusal=None if route is None else route.refusal,
            says_ok=route is not None and route.says_ok,
        )

    def _record(self, call: Call, response: web.StreamResponse, started: float) -> None:
        context, route = self._context, call.route
        seconds = perf_counter() - started
        is_stream = not isinstance(response, web.Response)
        context.metrics.request(route.path if route else "none", response.status, None if is_stream else seconds)
        if context.config.access_log:
            request = call.request
            log_request(call.request_id, request.method, request.rel_url.raw_path, response.status, seconds)

    def _request_id(self, request: web.BaseRequest) -> str:
        given = request.headers.get(REQUEST_ID)
        if given and len(given) <= _LONGEST_REQUEST_ID and given.isascii() and given.isprintable():
            return given
        return f"{self._process}-{next(self._numbers)}"


def _log_orphan(request_id: str, task: asyncio.Task[web.StreamResponse]) -> None:
    """Log what nobody is there to be told, if it is our fault."""
    error = None if task.cancelled() else task.exception()
    if error is not None and is_internal(error):
        logger.error("request failed after its client had left", exc_info=error, extra={"request_id": request_id})


def _stand_in(node: Node[Route], method: str) -> Route:
    """Return the route that answers *method* although it was not declared: ``GET`` answers ``HEAD``.

    Raises:
        MethodNotAllowedError: None does.
    """
    route = node.methods.get("GET") if method == "HEAD" else None
    if route is None:
        raise MethodNotAllowedError(node.allowed)
    return route
