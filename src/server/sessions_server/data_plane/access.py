"""Who may do what to which stream, asked anew for every batch: a session may outlive the right to it.

Two kinds of credentials work here. A direct writer's token is for one channel, and for what its holder needs; every other
credential of the server may do what the table of permissions allows it on the routes that do the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Final

import attrs

from sessions_core.domain.access import ACCESS, Credential
from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.channel import Channel, Io, Record
from sessions_core.domain.direct import Tenure
from sessions_core.domain.ids import EnvironmentId
from sessions_core.domain.session import Session
from sessions_core.errors import SessionNotFoundError, UnavailableError
from sessions_core.services.session_service import SessionService
from sessions_server.auth.authenticator import Authenticator
from sessions_server.auth.caller import Caller
from sessions_server.data_plane.credentials import DirectToken, DirectTokens, is_direct
from sessions_server.data_plane.failures import BAD_HEADER, PERMISSION_DENIED, STREAM_NOT_FOUND, S2Error
from sessions_server.data_plane.gate import BEARER, bearer
from sessions_server.data_plane.names import basin_of, parse_stream, stream_of
from sessions_server.data_plane.records import Operation
from sessions_server.exchange import Exchange
from sessions_server.problems import UnauthenticatedError
from sessions_server.sse import hide_tokens, is_with_token

ROW_SECONDS: Final = 1.0
REMEMBERED_ROWS: Final = 10_000
BASIN: Final = "s2-basin"
_SAME_ROUTE: Final = {
    Operation.APPEND: "append_{io}",
    Operation.TRIM: "append_out",
    Operation.FENCE: "append_out",
    Operation.READ: "read_records",
    Operation.CHECK_TAIL: "read_records",
}
"""The route whose permission an operation asks for."""


@attrs.frozen(kw_only=True)
class Grant:
    """A permission that was given: for this channel, now.

    Attributes:
        session: As it was at most a second ago; None if there is none yet.
        tenure: Of the run to which the credentials were issued; None if they were issued to none.
        hides_tokens: Whether session tokens in the records are not for its holder.
    """

    channel: Channel
    session: Session | None
    tenure: Tenure | None = None
    hides_tokens: bool = False


@attrs.frozen
class _Row:
    session: Session
    read_at: float


@attrs.define
class Admission:
    """Lets requests pass, or says why not."""

    _auth: Authenticator
    _tokens: DirectTokens
    _sessions: SessionService
    _monotonic: Callable[[], float] = monotonic
    _looks_again_at: float = attrs.field(init=False, default=-math.inf)
    _rows: BoundedDict[tuple[str, str], _Row] = attrs.field(init=False, factory=lambda: BoundedDict(REMEMBERED_ROWS))

    async def admit(self, exchange: Exchange, stream: str, operation: Operation, *, since: float = -math.inf) -> Grant:
        """Return the permission to do *operation* to *stream*.

        Args:
            exchange: The request.
            stream: Its name.
            operation: What is to be done.
            since: As for :meth:`~sessions_server.auth.authenticator.Authenticator.authenticate`.

        Raises:
            S2Error: Wrong basin, or no such stream.
            UnauthenticatedError: No credential that works.
            ForbiddenError: One that may not do this.
        """
        token = bearer(exchange)
        if is_direct(token):
            found = await self._tokens.find(token)
            if found is None:
                raise UnauthenticatedError("The access token is invalid or has expired")
            return await self._admit_direct(found, _basin(exchange), stream, operation)
        caller = await self._auth.authenticate(BEARER + token, since)
        return await self._admit_caller(caller, _basin(exchange), stream, operation)

    async def shown(self, exchange: Exchange, stream: str, records: tuple[Record, ...]) -> tuple[Record, ...]:
        """Return those of *records*, which have been read, that may still be shown, and as they may.

        A session token among them may be signed with the key that has just replaced the reader's own: it is shown only if the
        credential works at this very moment, and without an end. Without one a silent store keeps nobody from reading on.

        Raises:
            S2Error: They may not, as :meth:`admit` says.
            UnauthenticatedError: The credential works no longer.
            UnavailableError: There is a token, and nobody can tell.
        """
        if any(map(is_with_token, records)):
            grant = await self.admit(exchange, stream, Operation.READ, since=self._auth.monotonic())
            return hide_tokens(records) if grant.hides_tokens else records
        if self._monotonic() >= self._looks_again_at:
            try:
                await self.admit(exchange, stream, Operation.READ)
            except UnavailableError:
                self._looks_again_at = (
                    self._monotonic() + ROW_SECONDS
                )  # else each piece would wait for a silence of its own
        return records

    async def _admit_direct(self, token: DirectToken, basin: str, stream: str, operation: Operation) -> Grant:
        channel = token.channel
        if basin != basin_of(channel.environment_id) or stream != stream_of(channel):
            raise S2Error.of(PERMISSION_DENIED, "The access token is for another stream")
        if not token.allows(operation):
            raise S2Error.of(PERMISSION_DENIED, f"The access token does not allow to {operation.value}")
        session = await self._find(channel.environment_id, channel.key)
        if session is None and channel.io is Io.IN:
            raise SessionNotFoundError(channel.key)
        return Grant(channel=channel, session=session, tenure=token.tenure)

    async def _admit_caller(self, caller: Caller, basin: str, stream: str, operation: Operation) -> Grant:
        environment_id = caller.environment.id
        if basin != basin_of(environment_id):
            raise S2Error.of("basin_not_found", "There is no such basin")
        parsed = parse_stream(stream)
        if parsed is None:
            raise S2Error.of(STREAM_NOT_FOUND, "There is no such stream")
        name, io = parsed
        session = await self._find(environment_id, name)
        if not _may(caller, operation, name, io, session):
            raise S2Error.of(PERMISSION_DENIED, f"The credential does not allow to {operation.value}")
        if session is None:
            raise SessionNotFoundError(name)
        hides_tokens = caller.scopes is not None or not caller.lasts
        return Grant(channel=session.channel(io), session=session, hides_tokens=hides_tokens)

    async def _find(self, environment_id: EnvironmentId, name: str) -> Session | None:
        """Return the session as it was at most a second ago."""
        known, now = self._rows.get((environment_id, name)), self._monotonic()
        if known is not None and now - known.read_at <= ROW_SECONDS:
            return known.session
        try:
            session = await self._sessions.get(environment_id, name)
        except SessionNotFoundError:
            return None
        self._rows[environment_id, name] = _Row(session, now)
        return session


def _may(caller: Caller, operation: Operation, name: str, io: Io, session: Session | None) -> bool:
    """Tell whether *caller* may do this on the route that does the same."""
    access = ACCESS[_SAME_ROUTE[operation].format(io=io.value)]
    if caller.credential not in access.credentials or caller.one_time is not None:
        return False  # a one-time token is used up by one request, which a session of many batches is not
    if operation in (Operation.TRIM, Operation.FENCE) and io is Io.IN:
        return False
    if operation is Operation.FENCE and caller.credential is not Credential.ROOT_KEY:
        return False
    if caller.may_with_session(access.action, name):
        return True
    return session is not None and caller.may_with_session(access.action, name, session.id, session.external_id)


def _basin(exchange: Exchange) -> str:
    basin = exchange.headers.get(BASIN)
    if basin is None:
        raise S2Error.of(BAD_HEADER, f"The header {BASIN} is missing")
    return basin
