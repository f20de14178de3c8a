"""The same for the data plane, which speaks S2: reading, appending, trimming and fencing streams."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import attrs
import s2_sdk._generated.s2.v1.s2_pb2 as pb

from harness.authorization.asking import Request
from harness.authorization.kinds import Form, Kind
from harness.authorization.lines import to_session
from harness.authorization.oracle import (
    FORBIDDEN,
    NO_EPOCH,
    UNKNOWN,
    WITH_EPOCHS,
    Case,
    Change,
    Epoch,
    Expected,
    Line,
    Plane,
    Presence,
    Row,
    expect,
)
from harness.authorization.rows import BY_EXTERNAL, NOTHING, OTHER, SESSIONS
from harness.direct import SESSION
from harness.in_process import ENVIRONMENT, OTHER_ENVIRONMENT
from sessions_server.data_plane.frames import encode_frame
from sessions_server.data_plane.names import basin_of

RECORDS: Final = "/v1/streams/{stream}/records"
TAIL: Final = RECORDS + "/tail"
NO_STREAM: Final = Expected(404, "stream_not_found")
DENIED: Final = Expected(403, "permission_denied")
READ: Final = Expected(200)
WRITTEN: Final = Expected(200, change=Change.SOME)
MISMATCH: Final = Expected(412)
ROOT_KEYS_ONLY: Final = {Form.KEY: FORBIDDEN, Form.TOKEN: FORBIDDEN}
KEYS_ONLY: Final = {Form.TOKEN: FORBIDDEN}
NOBODY: Final[tuple[tuple[str, ...], ...]] = ()

_GUARDS: Final = {Epoch.RIGHT: "live:2", Epoch.STALE: "live:1"}
_IN_WORDS_OF_S2: Final = {UNKNOWN: Expected(401, "authn"), FORBIDDEN: DENIED}


@attrs.frozen(kw_only=True)
class StreamLine(Line):
    """A way to ask for something to be done to a stream.

    Attributes:
        operation: What, in S2's words.
        io: Of the stream.
        in_own_basin: Whether it is asked for in the basin of the credential's environment, or else in the other one's.
    """

    operation: str
    io: str
    in_own_basin: bool = True
    plane: Plane = Plane.S2


def expect_of_stream(line: Line, kind: Kind, row: Row, epoch: Epoch) -> Expected:
    """Return the answer that *kind* has to get, in S2's words."""
    if kind.form is Form.DIRECT and kind.works:
        return _expect_of_direct(line, kind, row, epoch) if isinstance(line, StreamLine) else line.absent
    expected = expect(line, kind, row, epoch)
    return _IN_WORDS_OF_S2.get(expected, expected)


def _expect_of_direct(line: StreamLine, kind: Kind, row: Row, epoch: Epoch) -> Expected:
    """A direct writer may append to one stream, and trim it if it is ``out``, while his attempt lasts; he names it by its key."""
    assert kind.stream is not None
    is_named = (row is BY_EXTERNAL and kind.stream.subject == "chat") or (
        row is OTHER and kind.stream.subject == "page"
    )
    is_own = is_named and kind.stream.io.value == line.io
    may = line.operation == "append" or (line.operation == "trim" and line.io == "out")
    if not (is_own and may and line.in_own_basin) or kind.stream.is_over:
        return DENIED
    return line.stale if epoch is Epoch.STALE else line.good


def basin_for(line: Line, kind: Kind) -> str:
    """Return the basin that *kind* names."""
    is_home = kind.is_foreign is not getattr(line, "in_own_basin", True)
    return basin_of(ENVIRONMENT if is_home else OTHER_ENVIRONMENT)


Make = Callable[[Case], bytes]


def _ask(
    method: str, io: str, tail: str = "", query: str = "", make: Make | None = None, **headers: str
) -> Callable[[Case], Request]:
    def ask(case: Case) -> Request:
        stream = quote(f"sessions/{case.session}/{io}", safe="")
        target = f"/v1/streams/{stream}/records{tail}{query}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return Request(method=method, target=target, headers=sent, body=b"" if make is None else make(case))

    return ask


def _json(records: list[dict[str, Any]]) -> Make:
    """An append in JSON, fenced with the epoch that the case is about."""

    def make(case: Case) -> bytes:
        guard = _GUARDS.get(case.epoch)
        return json.dumps({"records": records} | ({} if guard is None else {"fencing_token": guard})).encode()

    return make


def _frame(headers: Mapping[str, str], body: bytes) -> Make:
    """An append session with one batch of one record."""
    record = pb.AppendRecord(
        headers=[pb.Header(name=name.encode(), value=value.encode()) for name, value in headers.items()], body=body
    )
    framed = encode_frame(pb.AppendInput(records=[record]).SerializeToString())
    return lambda _: framed


def _line(operation: str, io: str, what: str, ask: Callable[[Case], Request], needs: Any, **more: Any) -> StreamLine:
    route = (ask_method(operation), TAIL if what == "tail" else RECORDS)
    values = {
        "rows": SESSIONS,
        "good": READ,
        "absent": NO_STREAM,
        "ghost": NO_STREAM,
        "uses_up": True,
        "takes_one_time": False,
    }
    return StreamLine(
        name=f"S2 {what} {io}", route=route, ask=ask, needs=needs, operation=operation, io=io, **{**values, **more}
    )


def ask_method(operation: str) -> str:
    """Return the method by which *operation* is asked for."""
    return "GET" if operation in ("read", "check-tail") else "POST"


_RECORD: Final = {"body": '{"data":1,"id":"part"}'}
_FENCE: Final[dict[str, Any]] = {"headers": [["", "fence"]], "body": "live:2"}
_TRIM: Final[dict[str, Any]] = {"headers": [["", "trim"]], "body": "\x00" * 8}
_TYPE: Final = {"content_type": "application/json"}


def _refused_inside(*, is_out: bool) -> Callable[[Kind, Row, Epoch], Expected | None]:
    """A session is open to all who may append; what its batches ask for is refused inside of it."""

    def special(kind: Kind, row: Row, _: Epoch) -> Expected | None:
        may = is_out and kind.form is Form.ROOT
        return DENIED if row.presence(kind) is Presence.THERE and not may else None

    return special


def _lines_of(io: str) -> tuple[StreamLine, ...]:
    is_out = io == "out"
    reading, writing = to_session("read"), to_session("write")
    epochs = WITH_EPOCHS if is_out else NO_EPOCH
    refuses = KEYS_ONLY if is_out else {}
    return (
        _line("check-tail", io, "tail", _ask("GET", io, "/tail"), reading),
        _line("read", io, "read", _ask("GET", io, query="?seq_num=0"), reading),
        _line("read", io, "events", _ask("GET", io, query="?seq_num=0&wait=0", accept="text/event-stream"), reading),
        _line("read", io, "read session", _ask("GET", io, query="?seq_num=0&wait=0", content_type=SESSION), reading),
        _line(
            "append",
            io,
            "append",
            _ask("POST", io, make=_json([_RECORD]), **_TYPE),
            writing,
            good=WRITTEN,
            stale=MISMATCH,
            epochs=epochs,
            refuses=refuses,
        ),
        _line(
            "append",
            io,
            "append session",
            _ask("POST", io, make=_frame({}, _RECORD["body"].encode()), content_type=SESSION),
            writing,
            good=WRITTEN,
            refuses=refuses,
        ),
        _line(
            "trim",
            io,
            "trim",
            _ask("POST", io, make=_json([_TRIM]), **_TYPE),
            writing if is_out else NOBODY,
            good=Expected(200, change=Change.PERHAPS),
            stale=MISMATCH,
            epochs=epochs,
            refuses=refuses,
        ),
        _line(
            "fence",
            io,
            "fence",
            _ask("POST", io, make=_json([_FENCE]), **_TYPE),
            writing if is_out else NOBODY,
            good=WRITTEN,
            stale=MISMATCH,
            epochs=epochs,
            refuses=ROOT_KEYS_ONLY,
        ),
        _line(
            "fence",
            io,
            "fence in a session",
            _ask("POST", io, make=_frame({"": "fence"}, b"live:2"), content_type=SESSION),
            writing,
            good=WRITTEN,
            refuses=refuses,
            special=_refused_inside(is_out=is_out),
        ),
    )


def _management(method: str, path: str) -> Line:
    """What S2 has and we have not: whoever is somebody is told so."""
    return Line(
        name=f"S2 {method} {path}",
        route=(method, path),
        ask=lambda _: Request(method=method, target=path),
        rows=NOTHING,
        needs=((),),
        good=Expected(501, "not_implemented"),
        absent=Expected(501, "not_implemented"),
        plane=Plane.S2,
    )


MANAGEMENT_LINES: Final = (
    _management("GET", "/v1/basins"),
    _management("PUT", "/v1/basins/x"),
    _management("GET", "/v1/streams"),
    _management("DELETE", "/v1/streams/x"),
    _management("HEAD", "/v1/streams/x/records"),
    _management("POST", "/v1/access-tokens"),
    _management("GET", "/v1/metrics"),
    _management("GET", "/v1/locations"),
)
NOWHERE_LINE: Final = Line(
    name="S2 GET /v1/nowhere",
    route=("GET", "/v1/nowhere"),
    ask=lambda _: Request(method="GET", target="/v1/nowhere"),
    rows=NOTHING,
    needs=None,
    good=Expected(404, "not_found"),
    absent=Expected(404, "not_found"),
    plane=Plane.S2,
)
ABROAD_LINES: Final = tuple(
    _line(
        operation,
        "out",
        f"{operation} in the other basin",
        ask,
        ((),),
        in_own_basin=False,
        uses_up=False,
        special=lambda kind, row, epoch: Expected(404, "basin_not_found"),
    )
    for operation, ask in (
        ("read", _ask("GET", "out", query="?seq_num=0")),
        ("append", _ask("POST", "out", make=_json([_RECORD]), **_TYPE)),
    )
)
STREAM_LINES: Final[tuple[Line, ...]] = (
    *_lines_of("in"),
    *_lines_of("out"),
    *ABROAD_LINES,
    *MANAGEMENT_LINES,
    NOWHERE_LINE,
)
