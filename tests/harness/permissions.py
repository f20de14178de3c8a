"""The tables of docs/reference/permissions.md, made from the table of permissions and the table of routes.

``PYTHONPATH=tests .venv/bin/python -m harness.permissions`` writes them into the page; a test compares them with it. The columns that say
yes or no come from the oracle of the authorization tests, which have asked the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from harness.authorization.catalogue import KINDS
from harness.authorization.judging import EVERY_LINE
from harness.authorization.kinds import Kind
from harness.authorization.oracle import Epoch, Line, Plane, expect
from harness.authorization.streams import StreamLine, expect_of_stream
from sessions_core.domain.access import ACCESS, ANY_CREDENTIAL, SECRET_KEYS, Access, Target
from sessions_core.domain.channel import Io
from sessions_server.data_plane.access import _SAME_ROUTE
from sessions_server.data_plane.records import Operation
from sessions_server.route import Route
from sessions_server.table import PAGE_ROUTES, ROUTES

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "permissions.md"
BLOCK: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

NEEDS: Final = {
    Target.NOTHING: "itself what the token is to have",
    Target.ROOT_ONLY: "",
    Target.SESSION: "`{action}:sessions:<either id>`, `{action}:sessions`",
    Target.CREATE: "`{action}:tasks:<taskIdentifier>`, `{action}:tasks`, `{action}:sessions`",
    Target.LIST: "`{action}:sessions`, `{action}:tasks`, or `{action}:tasks:<task>` for each task in the filter",
    Target.RUN: "`{action}:runs:<run>`, `{action}:runs`, `{action}:sessions:<either id of its session>`, `{action}:sessions`",
    Target.OWN_RUN: "`{action}:runs:<run>`, `{action}:runs`",
    Target.OWN_WAIT: "`{action}:runs:<run>` or `{action}:runs`, and to read the session that the body names",
    Target.WAITPOINT: "`{action}:runs:<the run that waits>`, `{action}:runs`",
}
"""What a credential with scopes needs, by what the route is about."""
CALLING_RUN: Final = "; or, with `X-Session-Epoch`, `write:runs:<callingRunId>` for that run's own session"
WHO: Final = {SECRET_KEYS: "keys", ANY_CREDENTIAL: "keys, tokens"}
COLUMNS: Final = ("session token", "run token", "direct writer of out")
"""Kinds of credentials that the tables have a column for."""


def tables() -> dict[str, str]:
    """Return each table by its name."""
    return {
        "routes": _table(("method", "path", "credentials", "needs one of", *COLUMNS[:2]), _routes()),
        "streams": _table(("operation", "stream", "credentials", "needs one of", *COLUMNS), _streams()),
        "open": _table(("method", "path", "what"), _open()),
    }


def with_tables(page: str) -> str:
    """Return *page* with its tables as they are now."""
    made = tables()
    return BLOCK.sub(lambda found: found[1] + made[found[2]] + found[3], page)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = tuple(head)
    lines = [names, ("---",) * len(names), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  ", "| ")


def _routes() -> Iterator[tuple[str, ...]]:
    for route in ROUTES:
        for each in _directions(route):
            if each.access is not None:
                lines = _lines_of(each)
                may = (_may(lines, name) for name in COLUMNS[:2])
                yield f"`{each.method}`", f"`{each.path}`", *_asked(each.access), *may


def _directions(route: Route) -> list[Route]:
    """Return *route*, apart for ``in`` and ``out`` where these ask for different things."""
    expanded = [each for each in route.expand() if each.io is not None]
    return expanded if len({each.access for each in expanded}) > 1 else [route]


def _asked(access: Access) -> tuple[str, str]:
    if access.target is Target.ROOT_ONLY:
        return "root keys", ""
    needs = NEEDS[access.target].format(action=access.action.value)
    needs += CALLING_RUN if access.calling_run else ""
    once = "" if access.one_time or access.credentials == SECRET_KEYS else ", but no one-time tokens"
    return WHO[access.credentials] + once, needs


def _lines_of(route: Route) -> list[Line]:
    """Return all ways in which the tests ask *route*."""
    path = route.path if route.io is not None else route.path.replace("{io}", Io.IN.value)
    return [line for line in EVERY_LINE if line.route == (route.method, path)]


def _streams() -> Iterator[tuple[str, ...]]:
    lines = [line for line in EVERY_LINE if isinstance(line, StreamLine) and line.in_own_basin]
    for operation in Operation:
        for io in Io:
            found = [each for each in lines if (each.operation, each.io) == (operation.value, io.value)]
            may = (_may(found, name) for name in COLUMNS)
            yield operation.value, f"`{io.value}`", *_asked_of(operation, io, found[0]), *may


def _asked_of(operation: Operation, io: Io, line: StreamLine) -> tuple[str, str]:
    if not line.needs:
        return "nobody", ""
    access = ACCESS[_SAME_ROUTE[operation].format(io=io.value)]
    if operation is Operation.FENCE:
        return "root keys", ""
    return _asked(access)[0].replace(", but no one-time tokens", ""), NEEDS[access.target].format(
        action=access.action.value
    )


def _may(lines: Iterable[Line], name: str) -> str:
    """Tell whether the kind of credentials called *name* may do it to its own session, or as its own run."""
    kind = next(kind for kind in KINDS if kind.name == name)
    return "yes" if any(_is_admitted(line, kind) for line in lines) else ""


def _is_admitted(line: Line, kind: Kind) -> bool:
    oracle = expect if line.plane is Plane.SESSIONS else expect_of_stream
    answer = oracle(line, kind, line.rows[0], Epoch.RIGHT if Epoch.RIGHT in line.epochs else Epoch.NONE)
    return answer.status not in (401, 403)


def _open() -> Iterator[tuple[str, ...]]:
    for route in (*ROUTES, *PAGE_ROUTES):
        if route.access is None:
            yield f"`{route.method}`", f"`{route.path}`", route.summary


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
