"""Connections with damaged bytes: true requests of HTTP/1.1 and HTTP/2, cut, doubled, mixed and sprinkled with what hurts.

Whatever comes, the server answers or closes, in time, never with a 5xx, never with an error in another shape, and lives.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random
from typing import Any, Final

import attrs
from hpack import Decoder, Encoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame

from harness.http2 import PREFACE

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
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n")
HURTING: Final = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff\xfe",
    b" ",
    b"\t",
    b":",
    b"%00",
    b"%",
    b"../" * 20,
    b"{" * 500,
    b"[" * 5000,
    b"A" * 9000,
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding: gzip, chunked",
    b"\r\nContent-Length: 0",
    b"\r\nContent-Length: -1",
    b"\r\nContent-Length: 99999999999999999999999",
    b"\r\nContent-Encoding: gzip",
    b"\r\nContent-Encoding: br",
    b"\r\nContent-Encoding: deflate, deflate",
    b"\r\nConnection: upgrade\r\nUpgrade: websocket",
    b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    b"\r\nExpect: 100-continue",
    b"\r\nExpect: nothing",
    b"\r\nHost: \xff\xff",
    b"\r\nHost: ]:99999999[",
    b"\r\nX-Request-Id: \x7f\x01",
    b"\r\n folded",
    b"HTTP/9.9",
    b"HTTP/1.0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"0\r\n\r\n",
    b';ext="',
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)
Mutate = Callable[[bytes, Random], bytes]


def _flip(data: bytes, chance: Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        found[chance.randrange(len(found))] = chance.randrange(256)
    return bytes(found)


def _cut(data: bytes, chance: Random) -> bytes:
    start, end = sorted(chance.sample(range(len(data) + 1), 2))
    return data[:start] + data[end:]


def _end_early(data: bytes, chance: Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _double(data: bytes, chance: Random) -> bytes:
    start, end = sorted(chance.sample(range(len(data) + 1), 2))
    return data[:end] + data[start:end] * chance.choice((1, 1, 2, 50)) + data[end:]


def _sprinkle(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(HURTING) + data[at:]


def _sprinkle_lines(data: bytes, chance: Random) -> bytes:
    """Put something between two lines of the head, where it is read as a header."""
    ends = [found.start() for found in re.finditer(rb"\r\n", data)] or [0]
    at = chance.choice(ends)
    return data[:at] + chance.choice(HURTING) + data[at:]


def _shuffle(data: bytes, chance: Random) -> bytes:
    lines = data.split(b"\r\n")
    chance.shuffle(lines)
    return b"\r\n".join(lines)


MUTATIONS: Final[Sequence[Mutate]] = (_flip, _cut, _end_early, _double, _sprinkle, _sprinkle_lines, _shuffle)


def true_requests(key: str) -> list[bytes]:
    """Return requests of HTTP/1.1 that every server understands."""
    authorization = f"Authorization: Bearer {key}"
    create = b'{"type":"t","externalId":"bytes","taskIdentifier":"echo","triggerConfig":{"basePayload":{}}}'
    return [
        _request("GET /healthz HTTP/1.1"),
        _request("GET /healthz HTTP/1.0"),
        _request("HEAD /api/v1/sessions?page%5Bsize%5D=5 HTTP/1.1", authorization),
        _request("OPTIONS /api/v1/sessions HTTP/1.1", "Origin: https://x.test", "Access-Control-Request-Headers: a"),
        _request("POST /api/v1/sessions HTTP/1.1", authorization, body=create),
        _request("PATCH /api/v1/sessions/bytes HTTP/1.1", authorization, body=b'{"tags":["a"],"metadata":{"x":[1]}}'),
        _request("POST /realtime/v1/sessions/bytes/in/append HTTP/1.1", authorization, "X-Part-Id: p1", body=b"hello"),
        _request(
            "GET /realtime/v1/sessions/bytes/out HTTP/1.1", authorization, "Timeout-Seconds: 1", "Last-Event-ID: 3"
        ),
        _request("GET /realtime/v1/sessions/bytes/out/records?afterEventId=1&limit=5 HTTP/1.1", authorization),
        _request("PUT /realtime/v1/sessions/bytes/out HTTP/1.1", authorization),
        _request("GET /page/style.css HTTP/1.1"),
        _request("GET http://server/healthz HTTP/1.1"),
        _request("OPTIONS * HTTP/1.1"),
        _request("CONNECT server:443 HTTP/1.1"),
        _request("DELETE /api/v1/sessions/bytes/ HTTP/1.1", authorization, "Content-Length: 0"),
        _request("GET /v1/streams/sessions%2Fbytes%2Fout/records?count=1&clamp=true HTTP/1.1", authorization),
        _request(
            "POST /v1/streams/sessions%2Fbytes%2Fin/records HTTP/1.1",
            authorization,
            "Content-Type: application/json",
            body=b'{"records":[{"body":"{\\"data\\":1,\\"id\\":\\"p2\\"}"}]}',
        ),
        _request("POST /realtime/v1/sessions/bytes/in/append HTTP/1.1", authorization, "Transfer-Encoding: chunked")
        + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: x\r\n\r\n",
        _request("GET /healthz HTTP/1.1") * 3 + _request("GET /openapi.json HTTP/1.1", "Connection: close"),
    ]


def _request(line: str, *headers: str, body: bytes = b"") -> bytes:
    length = (f"Content-Length: {len(body)}",) if body else ()
    return "\r\n".join((line, "Host: server", *headers, *length, "", "")).encode() + body


def true_conversation(key: str) -> list[bytes]:
    """Return the pieces of a conversation over HTTP/2: the preface, settings, and requests with their bodies."""
    encoder, pieces = Encoder(), [PREFACE, SettingsFrame(0).serialize()]
    common = [(":scheme", "http"), (":authority", "server"), ("authorization", f"Bearer {key}")]
    for number, (method, path, body) in enumerate(
        (
            ("GET", "/healthz", b""),
            ("POST", "/api/v1/sessions", b'{"type":"t","taskIdentifier":"echo","triggerConfig":{"basePayload":{}}}'),
            ("POST", "/realtime/v1/sessions/bytes/in/append", b"hello"),
            ("GET", "/realtime/v1/sessions/bytes/out", b""),
            ("GET", "/v1/streams/sessions%2Fbytes%2Fout/records?count=1", b""),
        )
    ):
        block = encoder.encode([(":method", method), (":path", path), *common])
        flags = ["END_HEADERS", *(() if body else ("END_STREAM",))]
        pieces.append(HeadersFrame(2 * number + 1, block, flags=flags).serialize())
        if body:
            pieces.append(DataFrame(2 * number + 1, body, flags=["END_STREAM"]).serialize())
    return pieces


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
        requests, conversation = true_requests(self.key), true_conversation(self.key)
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
        for problem in (_problems_of_frames if kind == HTTP2 else _problems_of_answers)(end.answer):
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
    if not {"error", "code"} <= told.keys() and told.keys() != {"code", "message"}:
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
