"""Writing and reading channels as S2's clients do: with the official SDK, or byte by byte."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import attrs
from s2_sdk import S2, AppendInput, Endpoints, Record, Retry, S2Stream
from yarl import URL

from harness.in_process import ENVIRONMENT, ROOT_KEY, Site
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.direct import Tenure
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import AddressingKey
from sessions_server.data_plane.names import basin_of, stream_of

BASIN: Final = basin_of(ENVIRONMENT)
SESSION: Final = "s2s/proto"


@attrs.frozen
class Credentials:
    """What a direct writer was given."""

    token: str
    basin: str = BASIN
    stream: str = "sessions/chat-1/out"


@attrs.frozen
class Frames:
    """What a session answered: the payloads, and the error of a terminal frame."""

    payloads: list[bytes]
    status: int | None = None
    error: Any = None


@attrs.frozen
class Answer:
    """What came back over HTTP/1.1."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self) -> Any:
        """The error's code."""
        return self.json["code"]

    @property
    def frames(self) -> Frames:
        """The body, cut into frames."""
        payloads: list[bytes] = []
        rest = self.body
        while rest:
            end = 3 + int.from_bytes(rest[:3], "big")
            flags, payload, rest = rest[3], rest[4:end], rest[end:]
            if flags & 0x80:
                assert not rest
                return Frames(payloads, int.from_bytes(payload[:2], "big"), json.loads(payload[2:]))
            payloads.append(payload)
        return Frames(payloads)


def channel(name: str = "chat-1", way: Io = Io.OUT) -> Channel:
    """Return a channel of the first environment."""
    return Channel(ENVIRONMENT, AddressingKey(name), way)


async def credentials(site: Site, name: str = "chat-1", way: str = "out", token: str = ROOT_KEY) -> Credentials:
    """Ask for credentials as the official client does, where the log gives none of its own."""
    answer = await site.client(token).call("PUT", f"/realtime/v1/sessions/{quote(name, safe='')}/{way}")
    assert answer.status == 202, answer
    assert answer.headers["X-S2-Endpoint"] == site.address + "/v1"
    names = ("X-S2-Access-Token", "X-S2-Basin", "X-S2-Stream-Name")
    return Credentials(*(answer.headers[header] for header in names))


def own_credentials(name: str = "chat-1", way: Io = Io.OUT, token: str = ROOT_KEY) -> Credentials:
    """Return what a holder of a key, or of another credential of the server, reaches a stream with."""
    return Credentials(token, BASIN, stream_of(channel(name, way)))


@asynccontextmanager
async def open_stream(site: Site, given: Credentials, **options: Any) -> AsyncGenerator[S2Stream]:
    """Open a stream with the SDK, over cleartext HTTP/2."""
    endpoints = Endpoints(site.address, site.address)
    async with S2(given.token, endpoints=endpoints, retry=Retry(max_attempts=1), **options) as s2:
        yield s2.basin(given.basin).stream(given.stream)


async def write_batches(site: Site, count: int) -> int:
    """Write batches one after the other in one session; return how many were acknowledged."""
    acked = 0
    async with open_stream(site, own_credentials()) as stream, stream.append_session() as session:
        for number in range(count):
            await (await session.submit(AppendInput([Record(b'{"data":1,"id":"%d"}' % number)])))
            acked += 1
    return acked


async def call(
    site: Site, method: str, given: Credentials, body: bytes | None = None, *, query: str = "", **headers: str
) -> Answer:
    """Make a request over HTTP/1.1 for the records of a stream."""
    path = f"/v1/streams/{quote(given.stream, safe='')}/records{query}"
    sent = {"authorization": f"Bearer {given.token}", "s2-basin": given.basin}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    url = URL(site.address + path, encoded=True)
    data = None if body is None else io.BytesIO(body)
    async with site.http.request(method, url, data=data, headers={k: v for k, v in sent.items() if v}) as response:
        return Answer(response.status, response.headers.copy(), await response.read())


async def begin(site: Site, name: str = "chat-1", attempt: int = 1) -> int:
    """Begin an attempt of the session's current run, up to its right to write ``out``; return its epoch."""
    session = await site.sessions.sessions.get(ENVIRONMENT, name)
    assert session.current_run_id is not None
    run = await site.sessions.ports.runs.begin(session.current_run_id, attempt)
    assert run is not None
    log, out = site.sessions.ports.log, session.channel(Io.OUT)
    change = await log.set_guard(out, Guard.live(run.epoch), expect=(await log.tail(out)).guard)
    assert change.done
    return run.epoch


async def token_for(site: Site, name: str = "chat-1", way: Io = Io.OUT, *, tenure: Tenure) -> Credentials:
    """Sign a token as the server does, whatever its log can do."""
    lifetime = site.server.context.config.direct_token_lifetime
    token = await site.server.context.direct_tokens.sign(channel(name, way), tenure, lifetime)
    return Credentials(token, BASIN, stream_of(channel(name, way)))
