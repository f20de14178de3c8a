"""Errors as HTTP answers: the only table from an error's class to its status.

Every error answer is one JSON object ``{"error", "code", "field"?, "details"?}``; an append's also says ``"ok": false``,
and one about a closed session says ``closedReason``. Nothing in it comes from a driver, and there is never a stack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import attrs
import msgspec
from aiohttp import web

from sessions_core import errors
from sessions_core.errors import ClosedError, InvalidError, SessionExpiredError, SessionsError


class HttpError(SessionsError):
    """A request that is refused before it reaches the core."""


@attrs.define(eq=False)
class UnauthenticatedError(HttpError):
    """No credential, or one that does not work."""

    reason: str = "Invalid or Missing API key"

    @property
    def message(self) -> str:
        return self.reason


@attrs.define(eq=False)
class ForbiddenError(HttpError):
    """The credential works but may not do this."""

    reason: str = "Unauthorized"

    @property
    def message(self) -> str:
        return self.reason


class RouteNotFoundError(HttpError):
    """No route has this path."""

    @property
    def message(self) -> str:
        return "Not found"


@attrs.define(eq=False)
class MethodNotAllowedError(HttpError):
    """The path has no such method."""

    allowed: tuple[str, ...]

    @property
    def message(self) -> str:
        return "Method not allowed"


class BodyTooLargeError(HttpError):
    """The request's body is over the route's limit."""

    @property
    def message(self) -> str:
        return "Request body too large"


@attrs.define(eq=False)
class UnreadableBodyError(InvalidError):
    """The body is no UTF-8, no JSON, or was not decoded."""

    field: str = "body"
    reason: str = "is not valid JSON"


class MalformedRequestError(HttpError):
    """What came is no HTTP."""

    @property
    def message(self) -> str:
        return "The request is malformed"


class UrlTooLongError(HttpError):
    """The path, with its query string, is over the limit."""

    @property
    def message(self) -> str:
        return "The URL is too long"


class HeadersTooLargeError(HttpError):
    """There are too many headers, or they are too long."""

    @property
    def message(self) -> str:
        return "The request's headers are too many or too long"


class RequestTimeoutError(HttpError):
    """The request did not come to its end in time."""

    @property
    def message(self) -> str:
        return "The request came too slowly"


class TooManyConnectionsError(HttpError):
    """This process holds as many connections as it may."""

    @property
    def message(self) -> str:
        return "The server has too many connections"


class UnsupportedEncodingError(HttpError):
    """The body is packed in a way that is not undone here."""

    @property
    def message(self) -> str:
        return "A body's Content-Encoding can be gzip or deflate"


@attrs.define(eq=False)
class TooManyRequestsError(HttpError):
    """One request more than a limit allows.

    Attributes:
        kind: Of the limit: ``environment``, ``token``, ``address``, ``session``, ``page`` or ``process``.
        limit: How many it allows at once.
    """

    kind: str
    limit: int

    @property
    def message(self) -> str:
        return f"Too many requests for this {self.kind}, which may have {self.limit} at once"

    @property
    def headers(self) -> dict[str, str]:
        """What the answer's headers say about the limit."""
        return dict(_SOON)

    @property
    def members(self) -> dict[str, Any]:
        """What the answer's body says about it."""
        return {"title": "Too Many Requests", "status": 429, "type": _TYPE, "detail": self.message, "limit": self.limit}


@attrs.define(eq=False)
class TooManyStreamsError(TooManyRequestsError):
    """There are as many subscriptions and other long answers as may be open at a time."""

    @property
    def message(self) -> str:
        return f"Too many streams: this {self.kind} has {self.limit} open, and may have no more"


@attrs.define(eq=False)
class TooMuchUnfinishedError(TooManyRequestsError):
    """As much is held as may be of bodies of requests that are not finished."""

    @property
    def message(self) -> str:
        return f"Too much is under way: bodies of unfinished requests of this {self.kind} may take {self.limit} bytes"


@attrs.define(eq=False)
class RateLimitedError(TooManyRequestsError):
    """Requests, or credentials that do not work, come faster than a rate allows.

    Attributes:
        wait: How long it takes until one more may come.
        resets_at: When that will be.
    """

    wait: timedelta
    resets_at: datetime

    @property
    def message(self) -> str:
        what = "credentials that do not work" if self.kind == "address" else "requests"
        left = f"0/{self.limit} {what} remaining for this {self.kind}"
        return f"Rate limit exceeded: {left}. Retry in {self.seconds} second{'' if self.seconds == 1 else 's'}."

    @property
    def seconds(self) -> int:
        """The wait in whole seconds, rounded up."""
        return max(math.ceil(self.wait.total_seconds()), 1)

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.seconds), **rate_headers(self.limit, 0, self.resets_at.timestamp())}

    @property
    def members(self) -> dict[str, Any]:
        reset = math.ceil(self.resets_at.timestamp() * 1000)
        rate = {"title": "Rate Limit Exceeded", "remaining": 0, "reset": reset, "secondsUntilReset": self.seconds}
        return {**super().members, **rate}


def rate_headers(limit: int, remaining: int, reset: float) -> dict[str, str]:
    """Return the contract's headers of a limit, which will have one request more to give at *reset*, in Unix seconds."""
    return {
        "x-ratelimit-limit": str(limit),
        "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-reset": str(math.ceil(reset * 1000)),
    }


class NoDevelopmentEnvironmentError(HttpError):
    """The chat page has no environment to work in."""

    @property
    def message(self) -> str:
        return "This page works in a development environment, and there is none: make one with `sessions env create`"


class NotBuiltError(HttpError):
    """A part of the contract that this server does not have."""

    @property
    def message(self) -> str:
        return "This server keeps no snapshots or transcripts"


@attrs.frozen
class Answer:
    """What one class of errors is answered with.

    Attributes:
        retry: What ``x-should-retry`` tells the official clients, which otherwise repeat every 409 for nine seconds.
    """

    status: int
    code: str
    retry: bool | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)


_SOON: Final = {"Retry-After": "1"}
PROBLEM_JSON: Final = "application/problem+json"
_TYPE: Final = "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/429"
INTERNAL: Final = Answer(500, "internal_error")
INTERNAL_MESSAGE: Final = "Something went wrong"

TABLE: Final[Mapping[type[BaseException], Answer]] = {
    UnauthenticatedError: Answer(401, "unauthenticated", headers={"WWW-Authenticate": "Bearer"}),
    ForbiddenError: Answer(403, "unauthorized"),
    RouteNotFoundError: Answer(404, "not_found", retry=False),
    NotBuiltError: Answer(404, "not_built", retry=False),
    NoDevelopmentEnvironmentError: Answer(409, "no_development_environment", retry=False),
    MethodNotAllowedError: Answer(405, "method_not_allowed"),
    BodyTooLargeError: Answer(413, "body_too_large", retry=False),
    UnreadableBodyError: Answer(400, "invalid_body"),
    UnsupportedEncodingError: Answer(415, "unsupported_encoding", retry=False),
    MalformedRequestError: Answer(400, "malformed_request", retry=False),
    UrlTooLongError: Answer(414, "url_too_long", retry=False),
    HeadersTooLargeError: Answer(431, "headers_too_large", retry=False),
    RequestTimeoutError: Answer(408, "request_timeout"),
    # No word about retrying: the official clients then wait until x-ratelimit-reset, and with one only for a moment.
    RateLimitedError: Answer(429, "rate_limited"),
    TooManyStreamsError: Answer(429, "too_many_streams"),
    TooMuchUnfinishedError: Answer(429, "too_much_unfinished"),
    TooManyRequestsError: Answer(429, "rate_limited"),
    TooManyConnectionsError: Answer(503, "too_many_connections", headers=_SOON),
    errors.SessionNotFoundError: Answer(404, "session_not_found", retry=False),
    errors.RunNotFoundError: Answer(404, "run_not_found", retry=False),
    errors.WaitpointNotFoundError: Answer(404, "waitpoint_not_found", retry=False),
    errors.EnvironmentNotFoundError: Answer(404, "environment_not_found", retry=False),
    errors.AccessKeyNotFoundError: Answer(404, "key_not_found", retry=False),
    errors.NotFoundError: Answer(404, "not_found", retry=False),
    errors.InvalidCursorError: Answer(400, "invalid_cursor"),
    errors.InvalidError: Answer(400, "invalid_request"),
    errors.RecordTooLargeError: Answer(413, "record_too_large", retry=False),
    errors.TaskMismatchError: Answer(409, "task_mismatch", retry=False),
    errors.ExternalIdImmutableError: Answer(422, "external_id_immutable"),
    errors.StaleRunError: Answer(409, "stale_run", retry=False),
    errors.AttemptBegunError: Answer(409, "attempt_begun", retry=False),
    errors.ClaimExhaustedError: Answer(409, "claim_exhausted", retry=True, headers=_SOON),
    errors.GuardMismatchError: Answer(409, "conflict", retry=True),
    errors.TailMismatchError: Answer(409, "conflict", retry=True),
    errors.ConflictError: Answer(409, "conflict", retry=True),
    errors.SessionClosedError: Answer(409, "session_closed", retry=False),
    errors.SessionExpiredError: Answer(409, "session_expired", retry=False),
    errors.ClosedError: Answer(409, "session_closed", retry=False),
    errors.StoreUnavailableError: Answer(503, "store_unavailable", headers=_SOON),
    errors.ChannelUnavailableError: Answer(503, "channel_unavailable", headers=_SOON),
    errors.DispatcherUnavailableError: Answer(503, "dispatcher_unavailable", headers=_SOON),
    errors.IndexUnavailableError: Answer(503, "index_unavailable", headers=_SOON),
    errors.WaitRegistryUnavailableError: Answer(503, "unavailable", headers=_SOON),
    errors.RateLimiterUnavailableError: Answer(503, "unavailable", headers=_SOON),
    errors.UnavailableError: Answer(503, "unavailable", headers=_SOON),
    errors.IncompatibleStoreError: Answer(503, "incompatible_store"),
    errors.StoreInUseError: Answer(503, "incompatible_store"),
    errors.IndexRefusedError: INTERNAL,
    errors.StrayCancellationError: INTERNAL,
    errors.MissingExtraError: INTERNAL,
    HttpError: INTERNAL,
    errors.SessionsError: INTERNAL,
}
_SILENT: Final = (errors.GuardMismatchError, errors.TailMismatchError, errors.IncompatibleStoreError)
"""Classes whose message is about the inside; the answer says something general instead."""


@attrs.frozen
class Refusal:
    """How a route answers a write to a session that takes none any more.

    Attributes:
        sentence: With ``{state}`` where "closed" or "expired" goes, or ``{a}`` for the word with its article.
        code: None keeps ``session_closed`` and ``session_expired`` apart.
    """

    status: int
    sentence: str
    code: str | None = "session_closed"


def answer_for(error: BaseException) -> Answer:
    """Return the table's line for *error*: that of its nearest class. Unknown classes are internal errors."""
    return next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), INTERNAL)


def is_internal(error: BaseException) -> bool:
    """Tell whether *error* is nobody's doing but ours, so that it belongs in the log."""
    return answer_for(error) is INTERNAL


def describe(error: BaseException, refusal: Refusal | None = None) -> dict[str, Any]:
    """Return the body that *error* is answered with."""
    answer = answer_for(error)
    body: dict[str, Any] = {"error": _sentence(error, answer, refusal), "code": answer.code}
    if isinstance(error, InvalidError):
        body["field"] = error.field
    if isinstance(error, ClosedError):
        if refusal is not None and refusal.code is not None:
            body["code"] = refusal.code
        if error.closed_reason is not None:
            body["closedReason"] = error.closed_reason
    if isinstance(error, TooManyRequestsError):
        body |= error.members
    return body


def problem_response(error: BaseException, *, refusal: Refusal | None = None, says_ok: bool = False) -> web.Response:
    """Make the answer to *error*.

    Args:
        error: What was raised.
        refusal: The route's way to say that a session is closed.
        says_ok: Whether the body begins with ``"ok": false``.
    """
    answer = answer_for(error)
    body = describe(error, refusal)
    if says_ok:
        body = {"ok": False, **body}
    headers = {"Content-Type": "application/json", **answer.headers}
    if answer.retry is not None:
        headers["x-should-retry"] = "true" if answer.retry else "false"
    if isinstance(error, MethodNotAllowedError):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, TooManyRequestsError):
        headers |= {"Content-Type": PROBLEM_JSON, **error.headers}
    status = refusal.status if refusal is not None and isinstance(error, ClosedError) else answer.status
    return web.Response(body=msgspec.json.encode(_presentable(body)), status=status, headers=headers)


def _sentence(error: BaseException, answer: Answer, refusal: Refusal | None) -> str:
    if answer is INTERNAL or not isinstance(error, SessionsError):
        return INTERNAL_MESSAGE
    if isinstance(error, _SILENT):
        return "The server cannot do this now"
    if refusal is not None and isinstance(error, ClosedError):
        state, a = ("expired", "an expired") if isinstance(error, SessionExpiredError) else ("closed", "a closed")
        return refusal.sentence.format(state=state, a=a)
    return error.message


def _presentable(body: dict[str, Any]) -> dict[str, Any]:
    """Replace what UTF-8 cannot say (a lone surrogate in a name that the caller gave)."""
    return {
        name: value.encode(errors="replace").decode() if isinstance(value, str) else value
        for name, value in body.items()
    }
