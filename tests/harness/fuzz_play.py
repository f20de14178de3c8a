"""Sends a server the requests that :mod:`harness.fuzz_requests` makes, and lets :mod:`harness.fuzz_judge` judge the answers."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from http.client import BadStatusLine, HTTPConnection, HTTPResponse
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from harness.fuzz_judge import PATIENCE, Judge, Told
from harness.fuzz_requests import Made, Things
from sessions_server.data_plane.names import basin_of

FRESH: Final = 10
"""After so many requests to a route there is a new session, as one of them may have closed the last."""
UNLIMITED: Final = {"SESSIONS_GUESS_RATE": "off"}
"""Settings of a server that takes as many wrong credentials as there are."""
MOST_MEMORY: Final = 24 * 1_048_576
"""What a server may have grown by when it was largest, its requests still under way.

That is 16 MiB for eight requests at once, each with a body of a MiB and what is made of it, and the rest for what is made when something
is done for the first time and for what the profile ``memory`` keeps. A body without a cap is larger than that alone.
"""
OUTSIDERS: Final = 5
"""One of so many requests comes with a credential that is none."""


def garbage(environment_id: str) -> list[str]:
    """Return ``Authorization`` headers that open nothing."""
    claims = {"sub": environment_id, "pub": True, "scopes": ["admin"], "exp": 2**40, "iat": 0}
    unsigned = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({"alg": "none"}, claims)]
    return [
        "",
        "Bearer",
        "Bearer nonsense",
        f"Bearer tr_dev_{'x' * 24}",
        f"Bearer {'.'.join(unsigned)}.",
        f"Bearer {'.'.join(unsigned)}.{'A' * 43}",
        f"Bearer eyJhbGciOiJIUzI1NiJ9.{base64.urlsafe_b64encode(b'[' * 3000).decode()}.x",
        "Bearer ..",
        "Basic dTpw",
        "Bearer \xff\xfe",
    ]


@attrs.define(eq=False)
class Connection:
    """Sends one request after the other, over the same connection as long as the server keeps it."""

    address: str
    _connection: HTTPConnection | None = None

    def call(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Told:
        """Send a request and read its answer.

        Raises:
            OSError: None came, or not in time.
        """
        if self._connection is not None:
            try:
                return self._exchange(self._connection, method, target, headers, body)
            except (BadStatusLine, ConnectionError):
                self.close()  # the server has ended it after the last answer, as it may
        host = urlsplit(self.address)
        self._connection = HTTPConnection(host.hostname or "", host.port, timeout=PATIENCE)
        return self._exchange(self._connection, method, target, headers, body)

    def close(self) -> None:
        """Leave, also from the middle of a stream."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(
        self, connection: HTTPConnection, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Told:
        started = time.monotonic()
        connection.request(method, target, body, dict(headers))
        with connection.getresponse() as response:
            content = self._content(response)
        found: dict[str, list[str]] = {}
        for name, value in response.getheaders():
            found.setdefault(name.lower(), []).append(value)
        return Told(status=response.status, headers=found, body=content, seconds=time.monotonic() - started)

    def _content(self, response: HTTPResponse) -> bytes:
        if (response.getheader("Content-Type") or "").startswith("text/event-stream") and response.length != 0:
            beginning = response.read1(65_536)
            self.close()
            return beginning
        return response.read()


@attrs.define(kw_only=True)
class Findings:
    """What came of it."""

    requests: Counter[str] = attrs.field(factory=Counter)
    statuses: Counter[int] = attrs.field(factory=Counter)
    slowest: float = 0.0
    problems: list[str] = attrs.field(factory=list)

    def lines(self) -> Iterator[str]:
        """Yield it as a table."""
        yield from (f"{count:6} {route}" for route, count in sorted(self.requests.items()))
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        yield f"{self.requests.total():6} in all: {statuses}; the slowest took {self.slowest:.2f} s"
        yield from self.problems


@attrs.define(eq=False)
class Player:
    """Plays requests against one server.

    Attributes:
        key: A root key.
    """

    address: str
    key: str
    judge: Judge
    findings: Findings = attrs.field(init=False, factory=Findings)
    _name: str = attrs.field(init=False, factory=lambda: secrets.token_hex(4))
    _connection: Connection = attrs.field(init=False)
    _outsiders: Sequence[str] = attrs.field(init=False)
    _basin: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._connection = Connection(self.address)
        environment_id = self._call("POST", "/api/v1/auth/jwt/claims")["sub"]
        self._outsiders = garbage(environment_id)
        self._basin = basin_of(environment_id)

    def play(self, made: Sequence[Made]) -> Findings:
        """Send *made*, which are in the order of their routes; return what was found."""
        for route, group in groupby(made, key=lambda each: each.route):
            things = self._make_things(route)
            for number, each in enumerate(group, 1):
                if number % FRESH == 0:
                    things = self._make_things(route)
                is_outsider = number % OUTSIDERS == OUTSIDERS - 1
                outsider = self._outsiders[number // OUTSIDERS % len(self._outsiders)]
                credential = outsider if is_outsider else f"Bearer {self.key}"
                self._send(each, things, credential, insist=number % 2 == 0)
        self._connection.close()
        return self.findings

    def _send(self, made: Made, things: Things, credential: str, *, insist: bool) -> None:
        """Send a request, to things that are there if the document's examples name them, or to *insist*."""
        target = made.target(things, insist=insist)
        headers = {**things.fill_headers(made.headers, insist=insist), "Authorization": credential}
        body = things.fill_body(made.body)
        self.findings.requests[made.route] += 1
        try:
            told = self._connection.call(made.method, target, headers, body)
        except OSError as error:
            self._connection.close()
            self._note(made, target, body, f"no answer: {error!r}")
            return
        self.findings.statuses[told.status] += 1
        self.findings.slowest = max(self.findings.slowest, told.seconds)
        for problem in self.judge.problems(made, target, told, is_admitted=credential == f"Bearer {self.key}"):
            self._note(made, target, body, f"{problem}: {told.status} {told.body[:300]!r}")

    def _note(self, made: Made, target: str, body: bytes | None, problem: str) -> None:
        self.findings.problems.append(
            f"{made.method} {target[:300]} {dict(made.headers)} {(body or b'')[:300]!r}: {problem}"
        )

    def _make_things(self, route: str) -> Things:
        """Make a session with a run and a waitpoint that is completed, for which nobody has to wait.

        The agent of this server serves it, or, for routes of engines, an attempt of somebody else's that has begun.
        """
        is_engines = "/engine/" in route
        name = f"fuzz {self._name} {self.findings.requests.total()}/é"
        body = {"type": "t", "externalId": name, "triggerConfig": {"basePayload": {}}}
        run = self._call("POST", "/api/v1/sessions", {**body, "taskIdentifier": "elsewhere" if is_engines else "echo"})
        wait = {"session": name, "io": "in"}
        waitpoint = self._call("POST", f"/api/v1/runs/{run['runId']}/session-streams/wait", wait)
        self._call("POST", f"/realtime/v1/sessions/{run['id']}/in/append", {"kind": "message"})
        if is_engines and "attempts/start" not in route:
            self._call("POST", f"/engine/v1/runs/{run['runId']}/attempts/start", {"attempt": 1})
        return Things(session=name, run=run["runId"], waitpoint=waitpoint["waitpointId"], basin=self._basin)

    def _call(self, method: str, target: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        told = self._connection.call(method, target, headers, None if body is None else json.dumps(body).encode())
        assert told.status < 300, told
        return json.loads(told.body)


def memory(pid: int) -> int:
    """Return a process's resident bytes."""
    return _resident(pid, "VmRSS")


def peak_memory(pid: int) -> int:
    """Return the most resident bytes that a process has had at any moment: no sample can miss it."""
    return _resident(pid, "VmHWM")


def _resident(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
