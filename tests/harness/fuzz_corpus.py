"""True requests of HTTP/1.1 and HTTP/2, and what may happen to their bytes on the way."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame
from s2_sdk._generated.s2.v1.s2_pb2 import AppendInput, AppendRecord

from harness.http2 import PREFACE
from sessions_server.data_plane.access import BASIN
from sessions_server.data_plane.compression import Compression
from sessions_server.data_plane.frames import encode_frame

STREAM: Final = "/v1/streams/sessions%2Fbytes%2Fin/records"
PAGE: Final = "Content-Type: application/json"
CREATE: Final = b'{"type":"t","externalId":"bytes","taskIdentifier":"echo","triggerConfig":{"basePayload":{}}}'
PACKED: Final = zlib.compress(bytes(64 * 1_048_576), wbits=31)
"""A body of 64 MiB in gzip: more than any request may hold."""
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


def true_requests(key: str, basin: str) -> list[bytes]:
    """Return requests of HTTP/1.1 that every server understands."""
    authorization, ours = f"Authorization: Bearer {key}", f"{BASIN}: {basin}"
    return [
        request("GET /healthz HTTP/1.1"),
        request("GET /healthz HTTP/1.0"),
        request("HEAD /api/v1/sessions?page%5Bsize%5D=5 HTTP/1.1", authorization),
        request("OPTIONS /api/v1/sessions HTTP/1.1", "Origin: https://x.test", "Access-Control-Request-Headers: a"),
        request("POST /api/v1/sessions HTTP/1.1", authorization, body=CREATE),
        request("PATCH /api/v1/sessions/bytes HTTP/1.1", authorization, body=b'{"tags":["a"],"metadata":{"x":[1]}}'),
        request("POST /realtime/v1/sessions/bytes/in/append HTTP/1.1", authorization, "X-Part-Id: p1", body=b"hello"),
        request(
            "POST /realtime/v1/sessions/bytes/in/append HTTP/1.1", authorization, "Content-Encoding: gzip", body=PACKED
        ),
        request(
            "GET /realtime/v1/sessions/bytes/out HTTP/1.1", authorization, "Timeout-Seconds: 1", "Last-Event-ID: 3"
        ),
        request("GET /realtime/v1/sessions/bytes/out/records?afterEventId=1&limit=5 HTTP/1.1", authorization),
        request("PUT /realtime/v1/sessions/bytes/out HTTP/1.1", authorization),
        request("GET / HTTP/1.1"),
        request("GET /page/agents HTTP/1.1"),
        request("POST /page/sessions HTTP/1.1", "Sec-Fetch-Site: same-origin", PAGE, body=b'{"task":"echo"}'),
        request("POST /page/tokens HTTP/1.1", "Sec-Fetch-Site: same-origin", PAGE, body=b'{"session":"page-1"}'),
        request("GET http://server/healthz HTTP/1.1"),
        request("OPTIONS * HTTP/1.1"),
        request("CONNECT server:443 HTTP/1.1"),
        request("DELETE /api/v1/sessions/bytes/ HTTP/1.1", authorization, "Content-Length: 0"),
        request(f"GET {STREAM}?count=1&clamp=true HTTP/1.1", authorization, ours),
        request(
            f"POST {STREAM} HTTP/1.1",
            authorization,
            ours,
            "Content-Type: application/json",
            body=b'{"records":[{"body":"{\\"data\\":1,\\"id\\":\\"p2\\"}"}]}',
        ),
        request("POST /realtime/v1/sessions/bytes/in/append HTTP/1.1", authorization, "Transfer-Encoding: chunked")
        + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: x\r\n\r\n",
        request("GET /healthz HTTP/1.1") * 3 + request("GET /openapi.json HTTP/1.1", "Connection: close"),
    ]


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    length = (f"Content-Length: {len(body)}",) if body else ()
    return "\r\n".join((line, "Host: localhost", *headers, *length, "", "")).encode() + body


def true_conversation(key: str, basin: str) -> list[bytes]:
    """Return the pieces of a conversation over HTTP/2: the preface, settings, and requests with their bodies."""
    encoder, pieces = Encoder(), [PREFACE, SettingsFrame(0).serialize()]
    common = [(":scheme", "http"), (":authority", "server"), ("authorization", f"Bearer {key}"), (BASIN, basin)]
    batch = AppendInput(records=[AppendRecord(body=b'{"data":1,"id":"p3"}')]).SerializeToString()
    for number, (method, path, kind, body) in enumerate(
        (
            ("GET", "/healthz", "", b""),
            ("POST", "/api/v1/sessions", "", CREATE),
            ("POST", "/realtime/v1/sessions/bytes/in/append", "", b"hello"),
            ("GET", "/realtime/v1/sessions/bytes/out", "", b""),
            ("GET", f"{STREAM}?count=1", "", b""),
            ("POST", STREAM, "application/protobuf", batch),
            ("POST", STREAM, "s2s/proto", encode_frame(batch) + encode_frame(batch * 90, Compression.ZSTD)),
        )
    ):
        block = encoder.encode([(":method", method), (":path", path), ("content-type", kind), *common])
        flags = ["END_HEADERS", *(() if body else ("END_STREAM",))]
        pieces.append(HeadersFrame(2 * number + 1, block, flags=flags).serialize())
        if body:
            pieces.append(DataFrame(2 * number + 1, body, flags=["END_STREAM"]).serialize())
    return pieces
