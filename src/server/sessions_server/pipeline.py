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
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Final

from aiohttp import web

from sessions_core.domain.access import Access
from sessions_core.errors import InvalidError
from sessions_server import cors
from sessions_server.access import authorize, may_carry_out, wrong_credential
from sessions_server.auth.caller import Caller
from sessions_server.bodies import check_length, without_body
from sessions_server.limits.holder_counts import PAGE
from sessions_server.limits.unfinished_bytes import Share
from sessions_server.observability.logs import CLIENT_LEFT, log_request, logger
from sessions_server.observability.request_ids import REQUEST_ID
from sessions_server.page_access import check_sender
from sessions_server.problems import (
    HttpError,
    MethodNotAllowedError,
    RouteNotFoundError,
    is_internal,
    problem_response,
)
from sessions_server.protection import protect
from sessions_server.queries import parse_query
from sessions_server.route import Call, Context, Route
from sessions_server.router import Node, Router, decode_segment
from sessions_server.wire.values import decode_body

_UNKNOWN: Final = "-"
"""Method and path, in the log, of what has not become a request."""


class Pipeline:
    """Handles requests by a table of routes."""

    def __init__(self, routes: Iterable[Route], context: Context, page_routes: Iterable[Route] = ()) -> None:
        self._router = Router(line for route in routes for line in route.expand())
        self._page = Router(page_routes)
        self._context = context
        self._changes: set[asyncio.Task[web.StreamResponse]] = set()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer *request*."""
        started = perf_counter()
        call = Call(request, self._context, self._context.request_ids.take(request.headers.get(REQUEST_ID)))
        try:
            response = await self._answer(call)
        except asyncio.CancelledError:
            self._record(call, CLIENT_LEFT if call.begun is None else call.begun.status, started)
            raise
        except ConnectionError:
            if request.transport is None or request.transport.is_closing():
                # Raised, this would be logged as a failure; returned, aiohttp notices that nobody is there, and is silent.
                response = web.Response(status=CLIENT_LEFT)
            else:
                response = self._explain(call, RuntimeError("a connection broke inside"))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is answered, and logged if it is our fault
            response = self._explain(call, error)
        finally:
            if call.share is not None:
                call.share.release()
        if not response.prepared:
            headers = response.headers
            headers[REQUEST_ID] = call.request_id
            headers["Server"] = "sessions"
            protect(headers)
            if call.taken is not None and response.status != HTTPStatus.TOO_MANY_REQUESTS:
                self._context.limits.permits.show(call.taken, headers)
            if not call.is_of_page:
                cors.admit(request.headers.get("Origin"), headers)
        self._record(call, response.status, started)
        return response

    def refuse(self, error: HttpError, request_id: str | None = None) -> web.Response:
        """Answer what has not become a request.

        Args:
            error: Why not.
            request_id: What the caller calls it, if that is known.
        """
        request_id = self._context.request_ids.take(request_id)
        response = problem_response(error)
        response.headers.update({REQUEST_ID: request_id, "Server": "sessions"})
        protect(response.headers)
        self._context.metrics.request("none", response.status, 0.0)
        if self._context.config.access_log:
            log_request(request_id, _UNKNOWN, _UNKNOWN, response.status, 0.0)
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
        if route.cap is None and request.body_exists:
            return await without_body(request.content.iter_any(), partial(self._handle, call, route))
        return await self._handle(call, route)

    async def _handle(self, call: Call, route: Route) -> web.StreamResponse:
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
        call.caller = await call.context.page.environment.caller()
        call.taken = await call.context.limits.permits.take(call.environment_id, PAGE)
        check_length(request, route.cap)
        call.body = decode_body(await call.read_body(route.cap), route.decoder)
        return await self._undisturbed(call, route)

    async def _undisturbed(self, call: Call, route: Route) -> web.StreamResponse:
        """Run the handler to its end, whether its client waits for it or not."""
        task = asyncio.create_task(self._change(call, route))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(partial(_end_orphan, call.request_id, call.share))
            call.share = None
            raise

    async def _change(self, call: Call, route: Route) -> web.StreamResponse:
        if route.access is not None:
            await call.use_up()
        return await route.handler(call)

    async def _admit(self, call: Call, route: Route, access: Access, names: tuple[str, ...], values: list[str]) -> None:
        """Find out who calls, read what the route wants to be read, and check that it is allowed."""
        header = call.request.headers.get("Authorization")
        caller = call.caller = call.context.auth.recall(header) or await self._identify(call, header)
        permits = call.context.limits.permits
        is_vital = route.is_vital and may_carry_out(caller, values[0])
        call.taken = await permits.take(caller.environment.id, caller.counted_as, is_vital=is_vital)
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
            call.body = decode_body(await call.read_body(route.cap), route.decoder)
        await authorize(call, access)

    async def _identify(self, call: Call, header: str | None) -> Caller:
        """Look at a credential, unless it is not known and its address has shown too many that did not work."""
        auth, request = call.context.auth, call.request
        if header is None or auth.has_admitted(header):
            return await auth.authenticate(header)
        async with call.context.limits.guesses.counted(request.remote, request.headers):
            return await auth.authenticate(header)

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

    def _record(self, call: Call, status: int, started: float) -> None:
        context, route = self._context, call.route
        seconds = perf_counter() - started
        context.metrics.request(route.path if route else "none", status, seconds if call.begun is None else None)
        if context.config.access_log:
            request = call.request
            log_request(call.request_id, request.method, request.rel_url.raw_path, status, seconds)


def _end_orphan(request_id: str, share: Share | None, task: asyncio.Task[web.StreamResponse]) -> None:
    """Log what nobody is there to be told, if it is our fault; the body is held no more."""
    if share is not None:
        share.release()
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
