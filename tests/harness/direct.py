"""Writing and reading channels as S2's clients do: with the official SDK, or byte by byte."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import attrs
import pytest
import s2_sdk._generated.s2.v1.s2_pb2 as pb
from s2_sdk import S2, AppendInput, Endpoints, Record, Retry, S2ServerError, S2Stream
from yarl import URL

from harness.backends import SHARED
from harness.client import Client
from harness.in_process import ENVIRONMENT, ROOT_KEY, Site
from sessions_adapters.profiles import EMBEDDED, MEMORY
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.direct import Tenure
from sessions_core.domain.guard import Guard
from sessions_core.domain.ids import AddressingKey
from sessions_server.data_plane.names import basin_of, stream_of

BASIN: Final = basin_of(ENVIRONMENT)
SESSION: Final = "s2s/proto"
OWN_LOGS: Final = (MEMORY, EMBEDDED, SHARED[0])
"""The profiles whose log has no credentials of its own to give."""


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


def envelope(data: Any, part: str) -> Record:
    """Return a record of data as the official client writes it."""
    return Record(json.dumps({"data": data, "id": part}, separators=(",", ":")).encode())


def numbered(count: int, start: int = 0) -> list[Record]:
    """Return records that hold the numbers from *start* on."""
    return [envelope(number, f"part-{number}") for number in range(start, start + count)]


def append_input(*bodies: bytes, **more: Any) -> bytes:
    """Return the message of an append of *bodies*, as it is sent."""
    message = pb.AppendInput(**more)
    for body in bodies:
        message.records.add(body=body)
    data: bytes = message.SerializeToString()
    return data


async def data_of(client: Client, way: str = "out") -> list[Any]:
    """Return what the records of data hold, as brokered readers see them."""
    found = [record["data"] for record in await client.records("chat-1", way) if record.get("id")]
    return [json.loads(data) if isinstance(data, str) else data for data in found]


async def assert_empty(client: Client) -> None:
    """Check that neither channel has a record."""
    assert await client.records("chat-1", "out") == []
    assert await client.records("chat-1", "in") == []


async def refusal_of(stream: S2Stream, *records: Record) -> S2ServerError:
    """Append *records*, or one of data, and return how that is refused."""
    with pytest.raises(S2ServerError) as refusal:
        await stream.append(AppendInput(list(records) or [envelope("late", "late")]))
    return refusal.value


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
