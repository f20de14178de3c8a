"""What is asked of each route, and which rights that needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import attrs

from harness.authorization.asking import Request
from harness.authorization.kinds import Form, Kind
from harness.authorization.oracle import (
    FORBIDDEN,
    INVALID,
    NO_EPOCH,
    NO_RUN,
    NO_WAITPOINT,
    STALE_RUN,
    UNKNOWN,
    WITH_EPOCHS,
    Case,
    Change,
    Epoch,
    Expected,
    Line,
    Row,
)
from harness.authorization.rights import PASS_ON
from harness.authorization.rows import BY_EXTERNAL, MISSING, NOTHING, OTHER, RUNS, SESSIONS, THERE, UNREAL

SESSION: Final = "/api/v1/sessions/{session}"
CHANNEL: Final = "/realtime/v1/sessions/{session}/"
RUN: Final = "/api/v1/runs/{run}"
ENGINE: Final = "/engine/v1/runs/{run}"
WAITPOINT: Final = "/api/v1/waitpoints/tokens/{waitpoint}"
BLOCK: Final = ENGINE + "/waitpoints/tokens/{waitpoint}/wait"

OK: Final = Expected(200)
CHANGED: Final = Expected(200, change=Change.SOME)
NOT_BUILT: Final = Expected(404, "not_built")

Ask = Callable[[Case], Request]


def asking(method: str, path: str, body: Callable[[Case], Any] | None = None, *, is_stream: bool = False) -> Ask:
    """Return what makes the request *method* *path*, whose parameters are the case's, with a JSON *body*."""

    def ask(case: Case) -> Request:
        names = {name: quote(getattr(case, name), safe="") for name in ("session", "run", "waitpoint")}
        headers = {"X-Session-Epoch": case.epoch.value} if case.epoch in (Epoch.RIGHT, Epoch.STALE) else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        text = "" if body is None else json.dumps(body(case))
        return Request(
            method=method, target=path.format_map(names), headers=headers, body=text.encode(), is_stream=is_stream
        )

    return ask


def to_session(action: str) -> tuple[tuple[str, ...], ...]:
    """Return what it takes to do *action* to a session."""
    return ((f"{action} sessions",), (f"{action} session {{}}",))


def to_run(action: str) -> tuple[tuple[str, ...], ...]:
    """Return what it takes to do *action* to a run."""
    return ((f"{action} runs",), (f"{action} run {{}}",))


def line(
    method: str, path: str, needs: Any, *, ask: Ask | None = None, name: str = "", route: str = "", **more: Any
) -> Line:
    """Return a line; *name* says how it differs from others of the same route."""
    title = f"{method} {path}" + (f" {name}" if name else "")
    values = {"rows": SESSIONS, "good": OK, "ask": ask or asking(method, path), **more}
    return Line(name=title, route=(method, route or path), needs=needs, **values)


def change(path: str, needs: Any, body: Callable[[Case], Any], *, method: str = "POST", **more: Any) -> Line:
    """Return a line about a change."""
    return line(method, path, needs, **{"ask": asking(method, path, body), "good": CHANGED, "uses_up": True, **more})


def read(path: str, needs: Any, **more: Any) -> tuple[Line, Line]:
    """Return the lines about reading something: with its body, and without."""
    return line("GET", path, needs, **more), line("HEAD", path, needs, ask=asking("HEAD", path), **more)


# --- sessions -------------------------------------------------------------------------------------


def _wanted(case: Case) -> Any:
    return {
        "type": "t",
        "taskIdentifier": "one",
        "externalId": case.session,
        "triggerConfig": {"basePayload": {"n": 1}},
    }


def _of_another_task(kind: Kind, row: Row, _: Epoch) -> Expected | None:
    """The session is there, with the task ``two``: that is told to those alone who may create one with it."""
    if row is not OTHER or row.presence(kind) is not THERE:
        return None
    may = kind.form is Form.ROOT or kind.holds & {"write sessions", "write tasks", "write task two"}
    return Expected(409, "task_mismatch") if may else FORBIDDEN


CREATE: Final = change(
    "/api/v1/sessions",
    (("write sessions",), ("write tasks",), ("write task one",)),
    _wanted,
    rows=(BY_EXTERNAL, OTHER, MISSING, UNREAL),
    absent=Expected(201, change=Change.SOME),
    ghost=INVALID,
    special=_of_another_task,
)
LIST: Final = (("read sessions",), ("read tasks",))
LISTS: Final = tuple(
    line(
        method,
        "/api/v1/sessions",
        (*LIST, *more),
        ask=asking(method, "/api/v1/sessions" + query),
        name=name,
        rows=NOTHING,
        absent=OK,
    )
    for method in ("GET", "HEAD")
    for name, query, more in (
        ("all", "", ()),
        ("of one task", "?filter%5BtaskIdentifier%5D=one", (("read task one",),)),
        ("of two tasks", "?filter%5BtaskIdentifier%5D=one,two", (("read task one", "read task two"),)),
    )
)


def _as(run: str) -> Callable[[Case], Any]:
    """A body that says which run calls."""
    return lambda case: {"callingRunId": case.fill(run or case.row.run), "reason": "manual"}


def _close(name: str, run: str | None, **more: Any) -> Line:
    body = (lambda _: {}) if run is None else _as(run)
    return change(SESSION + "/close", to_session("admin"), body, name=name, **more)


def _hand_over(name: str, run: str, **more: Any) -> Line:
    return change(SESSION + "/end-and-continue", to_session("write"), _as(run), name=name, epochs=WITH_EPOCHS, **more)


def _foreign_namesake(answer: Expected) -> Callable[[Kind, Row, Epoch], Expected | None]:
    """The other environment has a session of the same name; the run that is said to call is not its own."""
    return lambda kind, row, _: answer if kind.is_foreign and row is BY_EXTERNAL else None


ROWS_OF_STRANGER: Final = (OTHER, MISSING)
SESSION_LINES: Final = (
    CREATE,
    *LISTS,
    *read(SESSION, to_session("read")),
    change(SESSION, to_session("admin"), lambda _: {"tags": ["t"]}, method="PATCH"),
    _close("", None),
    _close("as its run", "", epochs=WITH_EPOCHS, needs_run=to_run("write"), special=_foreign_namesake(STALE_RUN)),
    _close("as the run of another session", "{chat_run}", epochs=WITH_EPOCHS, rows=ROWS_OF_STRANGER, good=STALE_RUN),
    _hand_over("as its run", "", needs_run=to_run("write"), special=_foreign_namesake(NO_RUN)),
    _hand_over("as the run of another session", "{chat_run}", rows=ROWS_OF_STRANGER, good=OK),
    *(each for tail in ("/runs", "/waitpoints", "/channels") for each in read(SESSION + tail, to_session("read"))),
    *(
        each
        for tail in ("/snapshot-url", "/transcript")
        for each in read(SESSION + tail, to_session("read"), good=NOT_BUILT, absent=NOT_BUILT, ghost=NOT_BUILT)
    ),
    line("PUT", SESSION + "/snapshot-url", to_session("write"), good=NOT_BUILT, absent=NOT_BUILT, ghost=NOT_BUILT),
)

# --- channels -------------------------------------------------------------------------------------

KEYS_ONLY: Final = {Form.TOKEN: FORBIDDEN}
TAKES_NO_TOKEN: Final = {Form.TOKEN: UNKNOWN}


def _channel_lines(io: str) -> tuple[Line, ...]:
    path, is_out = CHANNEL + io, io == "out"
    refuses = KEYS_ONLY if is_out else {}
    return (
        line("GET", path, to_session("read"), ask=asking("GET", path, is_stream=True), absent=OK),
        line("HEAD", path, to_session("read"), absent=OK),
        line(
            "PUT",
            path,
            to_session("write"),
            good=Expected(202),
            absent=Expected(202),
            refuses=refuses,
            uses_up=True,
            takes_one_time=False,
        ),
        *read(path + "/records", to_session("read"), absent=OK),
        change(
            path + "/append",
            to_session("write"),
            lambda _: {"n": 1},
            refuses=refuses,
            epochs=WITH_EPOCHS if is_out else NO_EPOCH,
            says_ok=True,
        ),
    )


def _sideways(method: str, tail: str = "", **more: Any) -> Line:
    """No channel is called like that: whoever is somebody is told so."""
    path = CHANNEL + "sideways" + tail
    return line(
        method,
        path,
        ((),),
        route=CHANNEL + "{io}" + tail,
        rows=(BY_EXTERNAL,),
        special=lambda kind, row, epoch: INVALID,
        **more,
    )


CHANNEL_LINES: Final = (
    *_channel_lines("in"),
    *_channel_lines("out"),
    _sideways("GET"),
    _sideways("HEAD"),
    _sideways("PUT"),
    _sideways("GET", "/records"),
    _sideways("HEAD", "/records"),
    _sideways("POST", "/append", says_ok=True),
)

# --- runs and waits -------------------------------------------------------------------------------

ATTEMPT: Final[dict[str, Any]] = {"rows": RUNS, "absent": NO_RUN, "ghost": NO_RUN}
UNDER_EPOCH: Final[dict[str, Any]] = {**ATTEMPT, "epochs": WITH_EPOCHS, "needs_epoch": True}


def _wait_on(session: str) -> Callable[[Case], Any]:
    return lambda case: {"session": case.fill(session or case.row.session), "io": "in"}


WAIT_RIGHTS: Final = tuple(
    (run, session) for run in ("write runs", "write run {}") for session in ("read sessions", "read session {}")
)
RUN_LINES: Final = (
    *read(RUN, (*to_run("read"), *to_session("read")), **ATTEMPT),
    change(RUN + "/session-streams/wait", WAIT_RIGHTS, _wait_on(""), **ATTEMPT),
    change(
        RUN + "/session-streams/wait",
        tuple(
            (run, session)
            for run in ("write runs", "write run {}")
            for session in ("read sessions", "read session page")
        ),
        _wait_on("{page_key}"),
        name="on another session",
        **{**ATTEMPT, "rows": (RUNS[0], RUNS[2])},
    ),
    *read(WAITPOINT, to_run("read"), rows=RUNS, absent=NO_WAITPOINT, ghost=NO_WAITPOINT),
    change(BLOCK, to_run("write"), lambda _: {}, good=OK, **ATTEMPT),
    change(
        BLOCK,
        (("write runs",),),
        lambda _: {},
        ask=lambda case: asking("POST", BLOCK.replace("{waitpoint}", case.world.page.waitpoint))(case),
        name="of another run",
        good=OK,
        **{**ATTEMPT, "rows": (RUNS[0],)},
    ),
    change(ENGINE + "/attempts/start", to_run("write"), lambda _: {"attempt": 3}, **ATTEMPT),
    change(
        ENGINE + "/heartbeat", to_run("write"), lambda _: {}, good=Expected(200, change=Change.PERHAPS), **UNDER_EPOCH
    ),
    change(ENGINE + "/out/append", to_run("write"), lambda _: {"records": [{"data": 1}]}, says_ok=True, **UNDER_EPOCH),
    change(ENGINE + "/attempts/complete", to_run("write"), lambda _: {"status": "CANCELED"}, **UNDER_EPOCH),
)

# --- tokens ---------------------------------------------------------------------------------------

TOKEN_LINES: Final = (
    line(
        "POST",
        "/api/v1/auth/jwt/claims",
        ((),),
        rows=NOTHING,
        absent=OK,
        refuses={Form.KEY: FORBIDDEN, **TAKES_NO_TOKEN},
    ),
    line(
        "POST",
        "/api/v1/auth/public-tokens",
        (("read sessions",), (PASS_ON,)),
        ask=asking(
            "POST", "/api/v1/auth/public-tokens", lambda case: {"scopes": [case.fill("read:sessions:{chat_key}")]}
        ),
        rows=NOTHING,
        absent=OK,
        refuses=TAKES_NO_TOKEN,
    ),
    line(
        "POST",
        "/api/v1/auth/public-tokens",
        (("admin sessions", "admin runs", "admin tasks"),),
        ask=asking("POST", "/api/v1/auth/public-tokens", lambda _: {"scopes": ["admin"]}),
        name="for everything",
        rows=NOTHING,
        absent=OK,
        refuses=TAKES_NO_TOKEN,
    ),
)

# --- open to everybody ----------------------------------------------------------------------------


def _page(method: str, path: str, body: Any = None, *, site: str = "same-origin", **more: Any) -> Line:
    def ask(case: Case) -> Request:
        made = asking(method, path.replace("{file}", "main.js"), None if body is None else lambda _: body(case))(case)
        return attrs.evolve(made, headers={**made.headers, "Sec-Fetch-Site": site})

    return line(method, path, None, ask=ask, **{"rows": NOTHING, "absent": OK, **more})


OPEN_LINES: Final = tuple(
    each
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")
    for each in read(path, None, rows=NOTHING, absent=OK)
)
PAGE_LINES: Final = (
    *(_page(method, path) for path in ("/", "/page/{file}", "/page/agents") for method in ("GET", "HEAD")),
    # No agent is carried out here, so there is none to create a session for.
    _page("POST", "/page/sessions", lambda _: {"task": "one"}, absent=INVALID),
    _page(
        "POST",
        "/page/sessions",
        lambda _: {"task": "one"},
        site="cross-site",
        name="from another page",
        absent=FORBIDDEN,
    ),
    # The page works in the first environment alone, and lets in whoever knows the name of a session that it has made itself.
    _page(
        "POST",
        "/page/tokens",
        lambda case: {"session": case.session},
        rows=SESSIONS,
        special=lambda kind, row, epoch: OK if row is OTHER else Expected(404, "session_not_found"),
    ),
    _page(
        "POST",
        "/page/tokens",
        lambda case: {"session": case.session},
        site="cross-site",
        name="from another page",
        rows=SESSIONS,
        special=lambda kind, row, epoch: FORBIDDEN,
    ),
)

LINES: Final = (*SESSION_LINES, *CHANNEL_LINES, *RUN_LINES, *TOKEN_LINES, *OPEN_LINES, *PAGE_LINES)
