"""Connections with damaged bytes: true requests of HTTP/1.1 and HTTP/2, cut, doubled, mixed and sprinkled with what hurts.

Whatever comes, the server answers or closes, in time, never with a 5xx, never with an error in another shape, and lives.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random
from typing import Any, Final

import attrs
from hpack import Decoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import Frame, HeadersFrame

from harness.fuzz_corpus import CREATE, MUTATIONS, request, true_conversation, true_requests
from harness.http2 import PREFACE
from sessions_server.data_plane.names import basin_of

PATIENCE: Final = 15.0
QUIET: Final = 0.05
"""So long nothing has to come before we say that we have no more to say: a server that was cut short there need not answer."""
HEALTH_EVERY: Final = 50
AT_ONCE: Final = 8
HTTP1: Final = "HTTP/1.1"
HTTP2: Final = "HTTP/2"
HANGS: Final = "neither answered nor closed"
NOT_IMPLEMENTED: Final = 501
"""What the data plane says of those routes of S2 that manage basins and streams."""
S2_ERRORS: Final = ({"code", "message"}, {"tail"}, {"fencing_token_mismatch"}, {"seq_num_mismatch"})
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n")


@attrs.define(kw_only=True)
class Hurled:
    """What came of it: how often which kind of connection ended how, and what was wrong."""

    ends: Counter[str] = attrs.field(factory=Counter)
    slowest: float = 0.0
    problems: list[str] = attrs.field(factory=list)

    def lines(self) -> Iterator[str]:
        """Yield it as a table."""
        yield from (f"{count:6} {end}" for end, count in sorted(self.ends.items()))
        yield f"{self.ends.total():6} connections in all; the slowest took {self.slowest:.2f} s"


@attrs.define(eq=False)
class Hurler:
    """Hurls bytes at a server on a loopback port."""

    port: int
    key: str
    number: int = 1
    hurled: Hurled = attrs.field(init=False, factory=Hurled)
    _chance: Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._chance = Random(self.number)

    def hurl(self, count: int) -> Hurled:
        """Open *count* connections with damaged bytes, a quarter of them with HTTP/2; several at a time."""
        basin = self._find_basin()
        requests, conversation = true_requests(self.key, basin), true_conversation(self.key, basin)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for start in range(0, count, HEALTH_EVERY):
                thrown = [
                    self._damaged_conversation(conversation)
                    if number % 4 == 3
                    else (HTTP1, self._damaged(self._chance.choice(requests)))
                    for number in range(start, min(start + HEALTH_EVERY, count))
                ]
                for (kind, data), end in zip(thrown, pool.map(self._exchange, thrown), strict=True):
                    self._judge(kind, data, end)
                self._check_health()
        return self.hurled

    def _find_basin(self) -> str:
        """Ask the server in which environment we are, and make what is hurled at."""
        authorization = f"Authorization: Bearer {self.key}"
        _ = exchange(self.port, request("POST /api/v1/sessions HTTP/1.1", authorization, body=CREATE))
        asked = request("POST /api/v1/auth/jwt/claims HTTP/1.1", authorization, "Connection: close")
        claims = json.loads(exchange(self.port, asked, PATIENCE).answer.partition(b"\r\n\r\n")[2])
        return basin_of(claims["sub"])

    def _damaged(self, data: bytes) -> bytes:
        for _ in range(self._chance.choice((1, 1, 1, 2, 3))):
            data = self._chance.choice(MUTATIONS)(data or b"\0", self._chance)
        return data

    def _damaged_conversation(self, pieces: Sequence[bytes]) -> tuple[str, bytes]:
        """Damage some pieces, but mostly not the first two: without them nothing of the rest is looked at."""
        least = self._chance.choice((0, 1, 2, 2, 2, 2))
        hit = self._chance.randrange(least, len(pieces))
        found = [self._damaged(piece) if number == hit else piece for number, piece in enumerate(pieces)]
        if self._chance.random() < 0.2:
            tail = found[2:]
            self._chance.shuffle(tail)
            found[2:] = tail
        return HTTP2, b"".join(found)

    def _exchange(self, thrown: tuple[str, bytes]) -> End:
        return exchange(self.port, thrown[1])

    def _judge(self, kind: str, data: bytes, end: End) -> None:
        self.hurled.slowest = max(self.hurled.slowest, end.seconds)
        self.hurled.ends[f"{kind}: {end.how}"] += 1
        if end.how == HANGS:
            self._note(kind, data, HANGS)
        judge = _problems_of_frames if kind == HTTP2 or data.startswith(PREFACE) else _problems_of_answers
        for problem in judge(end.answer):
            self._note(kind, data, f"{problem}: {end.answer[:400]!r}")

    def _note(self, kind: str, data: bytes, problem: str) -> None:
        self.hurled.problems.append(f"{kind} {data[:800]!r}: {problem}")

    def _check_health(self) -> None:
        answer = exchange(self.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", PATIENCE).answer
        if b" 200 OK" not in answer[:20]:
            self.hurled.problems.append(f"not healthy: {answer!r}")


@attrs.frozen
class End:
    """What came over a connection, how it ended, and how long that took after the last byte was sent."""

    answer: bytes
    how: str
    seconds: float


def exchange(port: int, data: bytes, quiet: float = QUIET) -> End:
    """Send *data*, wait for answers until there is *quiet*, say that nothing more comes, and read to the end."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        started = time.monotonic()
        try:
            connection.sendall(data)
            connection.settimeout(quiet)
            with suppress(TimeoutError):
                _read_into(received, connection)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(PATIENCE)
            _read_into(received, connection)
            how = "answered" if received else "closed"
        except TimeoutError:
            how = HANGS
        except OSError:
            how = "cut off"
    return End(bytes(received), how, time.monotonic() - started)


def _read_into(received: bytearray, connection: socket.socket) -> None:
    """Read to the end.

    Raises:
        TimeoutError: Nothing comes, or it does not end.
    """
    deadline = time.monotonic() + PATIENCE
    while piece := connection.recv(65_536):
        received += piece
        if time.monotonic() > deadline:
            raise TimeoutError


def _problems_of_answers(answer: bytes) -> Iterator[str]:
    """Say what is wrong with answers of HTTP/1.1, as far as their lengths let them be told apart."""
    while answer:
        line = STATUS_LINE.match(answer)
        if line is None:
            yield "something that is no answer"
            return
        head, _, rest = answer.partition(b"\r\n\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (text.partition(b":") for text in head.split(b"\r\n")[1:])
        }
        status, length = int(line[1]), headers.get(b"content-length")
        if status >= 500 and status != NOT_IMPLEMENTED:
            yield "a failure of ours"
        if status == 100:
            answer = rest
            continue
        if length is None:
            return
        body, answer = rest[: int(length)], rest[int(length) :]
        if status >= 400 and body:
            yield from _problems_of_refusal(headers, body)
        elif status >= 400 and b"HTTP/1." in answer[:7]:
            return  # to HEAD, whose length is not that of what follows
        if len(body) > 7 and STATUS_LINE.match(body):
            return


def _problems_of_refusal(headers: dict[bytes, bytes], body: bytes) -> Iterator[str]:
    try:
        told: Any = json.loads(body)
    except ValueError:
        if not STATUS_LINE.match(body):
            yield "an error that is no JSON"
        return
    if not {"error", "code"} <= told.keys() and told.keys() not in S2_ERRORS:
        yield "an error in another shape"
    if "error" in told and b"x-request-id" not in headers:
        yield "no request id"


def _problems_of_frames(answer: bytes) -> Iterator[str]:
    """Say what is wrong with an answer of HTTP/2, or of HTTP/1.1 if the preface was damaged."""
    if answer.startswith(b"HTTP/"):
        yield from _problems_of_answers(answer)
        return
    decoder = Decoder()
    try:
        for frame in _frames(answer):
            if isinstance(frame, HeadersFrame):
                headers = {str(name): str(value) for name, value in decoder.decode(frame.data)}
                if (status := int(headers.get(":status", "0"))) >= 500 and status != NOT_IMPLEMENTED:
                    yield "a failure of ours"
    except (HyperframeError, HPACKError) as error:
        yield f"frames that cannot be read ({error!r})"


def _frames(data: bytes) -> Iterator[Frame]:
    while len(data) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        if len(data) < 9 + length:
            return
        frame.parse_body(memoryview(data[9 : 9 + length]))
        yield frame
        data = data[9 + length :]
