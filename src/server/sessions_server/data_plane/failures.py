"""What went wrong, in the words of S2: a status, and a JSON body with a code.

The clients decide by the status whether they try again (408, 429 and 5xx), and by the code whether an append may have been
stored all the same; see https://s2.dev/docs/api/error-codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec

from sessions_core import errors
from sessions_core.domain.guard import UNTOUCHED, Guard
from sessions_server.problems import ForbiddenError, RequestTimeoutError, TooManyRequestsError, UnauthenticatedError

_ENCODE: Final = msgspec.json.Encoder().encode
BAD_FRAME: Final = "bad_frame"
BAD_HEADER: Final = "bad_header"
BAD_JSON: Final = "bad_json"
BAD_PATH: Final = "bad_path"
BAD_PROTO: Final = "bad_proto"
BAD_QUERY: Final = "bad_query"
INVALID: Final = "invalid"
NOT_IMPLEMENTED: Final = "not_implemented"
OTHER: Final = "other"
PERMISSION_DENIED: Final = "permission_denied"
RATE_LIMITED: Final = "rate_limited"
"""Says to S2's clients that nothing was stored."""
REQUEST_TIMEOUT: Final = "request_timeout"
SERVER_DRAINING: Final = "server_draining"
STREAM_NOT_FOUND: Final = "stream_not_found"
STATUSES: Final = {
    "authn": 401,
    BAD_FRAME: 400,
    BAD_HEADER: 400,
    BAD_JSON: 400,
    BAD_PATH: 400,
    BAD_PROTO: 400,
    BAD_QUERY: 400,
    "basin_not_found": 404,
    INVALID: 422,
    NOT_IMPLEMENTED: 501,
    OTHER: 500,
    PERMISSION_DENIED: 403,
    RATE_LIMITED: 429,
    REQUEST_TIMEOUT: 408,
    SERVER_DRAINING: 503,
    STREAM_NOT_FOUND: 404,
    "unavailable": 503,
}
"""The codes that we answer with; each always goes with the same status."""


@attrs.define(eq=False)
class S2Error(Exception):
    """A request that is answered with an error.

    Attributes:
        status: The HTTP status, also where it travels in a terminal frame.
        body: The JSON object.
    """

    status: int
    body: dict[str, Any]

    @classmethod
    def of(cls, code: str, message: str) -> S2Error:
        """Make one of the usual form."""
        return cls(STATUSES[code], {"code": code, "message": message})

    @property
    def text(self) -> bytes:
        """The body as JSON."""
        return _ENCODE(self.body)

    def __str__(self) -> str:
        return str(self.body)


def token_of(guard: Guard) -> str:
    """Return the fencing token that *guard* is; a stream that was never fenced has the empty one."""
    return "" if guard == UNTOUCHED else str(guard)


def draining() -> S2Error:
    """Return what long answers end with when the server stops; clients come back at once."""
    return S2Error.of(SERVER_DRAINING, "The server is stopping")


def unwritten(seq: int, timestamp: int) -> S2Error:
    """Return the answer to a read from where nothing is written yet."""
    return S2Error(416, {"tail": {"seq_num": seq, "timestamp": timestamp}})


def failure_of(error: Exception) -> S2Error:
    """Return how *error* is answered. What nobody foresaw is an internal error, of which nothing is told."""
    if isinstance(error, S2Error):
        return error
    make = next((_TABLE[cls] for cls in type(error).__mro__ if cls in _TABLE), None)
    return S2Error.of(OTHER, "Internal error") if make is None else make(error)


def is_internal(failure: S2Error) -> bool:
    """Tell whether it is nobody's doing but ours."""
    return failure.body.get("code") == OTHER


def _with(code: str) -> Callable[[Any], S2Error]:
    return lambda error: S2Error.of(code, error.message)


def _unavailable(_: object) -> S2Error:
    return S2Error.of("unavailable", "The server cannot do this now; try again")


_TABLE: Final[dict[type[BaseException], Callable[[Any], S2Error]]] = {
    UnauthenticatedError: _with("authn"),
    ForbiddenError: _with(PERMISSION_DENIED),
    TooManyRequestsError: _with(RATE_LIMITED),
    RequestTimeoutError: _with(REQUEST_TIMEOUT),
    errors.NotFoundError: lambda _: S2Error.of(STREAM_NOT_FOUND, "There is no such stream"),
    errors.InvalidError: _with(INVALID),
    errors.RecordTooLargeError: _with(INVALID),
    errors.ClosedError: _with(PERMISSION_DENIED),
    errors.StaleRunError: _with(PERMISSION_DENIED),
    errors.GuardMismatchError: lambda error: S2Error(412, {"fencing_token_mismatch": token_of(error.actual)}),
    errors.TailMismatchError: lambda error: S2Error(412, {"seq_num_mismatch": error.actual}),
    errors.ClaimExhaustedError: _unavailable,
    errors.UnavailableError: _unavailable,
    errors.IncompatibleStoreError: _unavailable,
}
