"""A route as a line of the table, and one request on its way through it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

import attrs
import msgspec
from aiohttp import web
from anyio import CancelScope

from sessions_core.domain.access import ACCESS, Access
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.environment import Environment
from sessions_core.domain.ids import AddressingKey, EnvironmentId, is_friendly_id
from sessions_core.domain.rate import Taken
from sessions_core.domain.session import Session
from sessions_core.errors import SessionNotFoundError
from sessions_core.facade import Sessions
from sessions_server.auth.authenticator import Authenticator
from sessions_server.auth.caller import Caller
from sessions_server.bodies import read_body
from sessions_server.config import Config
from sessions_server.data_plane.credentials import DirectTokens
from sessions_server.limits.limits import Limits
from sessions_server.limits.streams import Held
from sessions_server.limits.unfinished_bytes import Share
from sessions_server.observability.metrics import Metrics
from sessions_server.observability.readiness import Readiness
from sessions_server.observability.replication_health import ReplicationStatus
from sessions_server.observability.request_ids import RequestIds
from sessions_server.page_access import Page
from sessions_server.problems import Refusal
from sessions_server.streams import Streams
from sessions_server.wire.schemas import Parameter
from sessions_server.wire.values import Wire

Query = Mapping[str, str]
Handler = Callable[["Call"], Awaitable[web.StreamResponse]]
JSON: Final = {"Content-Type": "application/json"}
UNSTORED: Final = {**JSON, "Cache-Control": "no-store"}
"""Headers of answers that hold a token."""
_ENCODE: Final = msgspec.json.Encoder().encode


@attrs.frozen(kw_only=True, eq=False)
class Context:
    """What every handler may use. ``document`` is the OpenAPI document; ``replication`` is there where this process replicates."""

    sessions: Sessions
    config: Config
    auth: Authenticator
    direct_tokens: DirectTokens
    limits: Limits
    streams: Streams
    metrics: Metrics
    document: bytes
    page: Page
    readiness: Readiness
    replication: ReplicationStatus | None = None
    request_ids: RequestIds = attrs.field(factory=RequestIds)


@attrs.frozen(kw_only=True, eq=False)
class Route:
    """One line of the route table.

    Attributes:
        path: Parameters in braces; ``{io}`` stands for ``in`` and ``out``, which are two routes.
        name: Entry of :data:`~sessions_core.domain.access.ACCESS`, or None if the route is open to everybody. ``{io}`` is
            replaced.
        cap: Longest body in bytes; None for a route that reads none.
        body: What the JSON body is read as; None if it is no JSON.
        response: What the answer's body is; None if it is no JSON.
        status: Of the usual answer.
        media: Content type of the usual answer if that is none of our JSON bodies.
        others: Statuses of answers that not every route of its kind gives: with the body, or None for an error's.
        query: Reads the query string's members; ``call.query`` holds what it returns.
        parameters: The query string's members, for the document.
        headers: Request headers that mean something here, for the document.
        sends: Headers of the usual answer, for the document.
        refusal: How it says that the session is closed.
        out_refusal: The same, for the ``out`` channel.
        says_ok: Whether error bodies begin with ``"ok": false``.
        is_undisturbed: Whether the handler goes on to its end although its client leaves, because it changes something in
            more than one step. Appends are one step, and streams and waits must end with their client.
        is_vital: Whether a run dies without it, so that it is counted apart from its environment's other requests. A route that
            is open to everybody is not counted.
        io: Set by :meth:`expand`.
    """

    method: str
    path: str
    name: str | None
    handler: Handler
    summary: str
    cap: int | None = None
    body: type[Wire] | None = None
    response: type[Wire] | None = None
    status: int = 200
    media: str | None = None
    others: Mapping[int, type[Wire] | None] = attrs.field(factory=dict)
    query: Callable[[Query, Context], Any] | None = None
    parameters: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    sends: tuple[Parameter, ...] = ()
    refusal: Refusal | None = None
    out_refusal: Refusal | None = None
    says_ok: bool = False
    is_undisturbed: bool = False
    is_vital: bool = False
    io: Io | None = None
    decoder: msgspec.json.Decoder[Any] | None = attrs.field(init=False)
    access: Access | None = attrs.field(init=False)

    @decoder.default
    def _make_decoder(self) -> msgspec.json.Decoder[Any] | None:
        return None if self.body is None else msgspec.json.Decoder(self.body)

    @access.default
    def _find_access(self) -> Access | None:
        return None if self.name is None else ACCESS[self.name.format(io=self.io or Io.IN)]

    def expand(self) -> Iterator[Route]:
        """Yield the routes that this line stands for.

        A line with ``{io}`` gives one for ``in``, one for ``out``, and one that takes every other word in order to say
        what is wrong with it.
        """
        if "{io}" in self.path:
            for io in Io:
                refusal = (self.out_refusal if io is Io.OUT else None) or self.refusal
                yield attrs.evolve(self, io=io, path=self.path.replace("{io}", io), refusal=refusal)
        yield self


@attrs.define(eq=False)
class Call:
    """One request. What the table asks for has been read and allowed before the handler sees it.

    Attributes:
        params: The path's parameters, decoded.
        body: An instance of the route's ``body``.
        query: What the route's ``query`` has read.
        taken: The permit that was taken for it, if there is a limit.
        is_of_page: Whether it is for the chat page, so that pages of other origins may not read the answer.
        begun: An answer in pieces, once it has begun.
        share: Counts what is held of its body, once that is read.
    """

    request: web.BaseRequest
    context: Context
    request_id: str
    route: Route | None = None
    caller: Caller = attrs.field(init=False)
    params: dict[str, str] = attrs.field(init=False)
    body: Any = None
    query: Any = None
    taken: Taken | None = None
    is_of_page: bool = False
    begun: web.StreamResponse | None = None
    share: Share | None = None
    _found: Session | None = attrs.field(init=False, default=None)

    @property
    def sessions(self) -> Sessions:
        """The core."""
        return self.context.sessions

    @property
    def environment(self) -> Environment:
        """The caller's environment: nothing else exists for it."""
        return self.caller.environment

    @property
    def environment_id(self) -> EnvironmentId:
        """Its id."""
        return self.caller.environment.id

    @property
    def name(self) -> str:
        """The session's id as the path gives it, friendly or external."""
        return self.params["session"]

    @property
    def io(self) -> Io:
        """The direction of the path's channel."""
        assert self.route is not None
        assert self.route.io is not None
        return self.route.io

    async def find_session(self) -> Session | None:
        """Return the path's session, perhaps as it was some time ago, or None."""
        if self._found is None:
            self._found = await self.sessions.sessions.find_cached(self.environment_id, self.name)
        return self._found

    async def get_session(self) -> Session:
        """Return the path's session, perhaps as it was some time ago.

        Raises:
            SessionNotFoundError: There is none.
        """
        session = await self.find_session()
        if session is None:
            raise SessionNotFoundError(self.name)
        return session

    async def channel(self) -> Channel:
        """Return the path's channel. An external id needs no session yet.

        Raises:
            SessionNotFoundError: No session with this friendly id.
        """
        session = await self.find_session()
        if session is not None:
            return session.channel(self.io)
        if is_friendly_id(self.name):
            raise SessionNotFoundError(self.name)
        return Channel(self.environment_id, AddressingKey(self.name), self.io)

    async def use_up(self) -> None:
        """Count the one use of a one-time token, once it is certain what it is used for.

        Raises:
            UnauthenticatedError: It was used before.
        """
        if self.caller.one_time is not None:
            await self.context.auth.use_up(self.caller)

    async def read_body(self, cap: int) -> bytes:
        """Return the body, which counts as held until the call's share is released. See :func:`~sessions_server.bodies.read_body`.

        A body may take a minute to come, and who sends it may have lost the right to do so by then: so the credential is
        looked at again, unless the body was there already.

        Raises:
            UnauthenticatedError: The caller's credential no longer works.
        """
        unfinished, has_come = self.context.limits.unfinished, self.request.content.is_eof()
        if self.is_of_page:
            self.share = unfinished.share_of_page()
        else:
            self.share = unfinished.share_of(self.environment_id, self.caller.counted_as)
        body = await read_body(self.request, cap, self.context.config.body_timeout, self.share)
        if not has_come and not self.is_of_page:
            self.caller = await self.context.auth.authenticate(self.header("Authorization"))
        return body

    def holding_stream(self, channel: Channel | None = None) -> Held:
        """Count this request as an open stream inside the block, one of *channel* if it is about one.

        Raises:
            TooManyStreamsError: There are too many already.
        """
        return self.context.limits.streams.held(self.environment_id, self.caller.counted_as, channel)

    def open_stream(self) -> AbstractContextManager[CancelScope]:
        """Run the block until it is done, the server stops, or the caller's credential no longer works."""
        end, now = self.caller.expires_at, self.sessions.clock.now().timestamp()
        return self.context.streams.open(math.inf if end is None else end - now, self.header("Authorization"))

    async def confirm(self) -> None:
        """Make sure that the caller's credential still works. Raises like :meth:`~sessions_server.auth.authenticator.Authenticator.confirm`."""
        await self.context.auth.confirm(self.header("Authorization"))

    def header(self, name: str) -> str | None:
        """Return a request header."""
        return self.request.headers.get(name)


def respond(body: Wire, status: int = 200, headers: Mapping[str, str] = JSON) -> web.Response:
    """Answer with *body* as JSON."""
    return web.Response(body=_ENCODE(body), status=status, headers=headers)
