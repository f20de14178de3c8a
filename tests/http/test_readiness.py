"""``/readyz`` answers 503 when nothing can be stored."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from harness.client import Client
from harness.in_process import open_site
from harness.server import KEY, ServerProcess
from sessions_adapters.sqlite.writer import Writer
from sessions_core.facade import Sessions
from sessions_server.observability import readiness


async def test_a_server_whose_writer_has_died_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    async with open_site("embedded", tmp_path) as site:
        client = site.client()
        assert (await client.call("GET", "/readyz")).status == 200
        monkeypatch.setattr(Writer, "_decide", die)
        async with asyncio.timeout(30):
            while (answer := await client.call("GET", "/readyz")).status == 200:
                await asyncio.sleep(0.05)
        assert (answer.status, answer.body) == (503, {"status": "unavailable"})
        assert (await client.call("GET", "/healthz")).status == 200
    assert [record.levelname for record in caplog.records if record.name == "sessions.sqlite"] == ["CRITICAL"]


async def test_however_many_ask_the_stores_are_asked_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async with open_site("memory", tmp_path) as site:
        check = site.sessions.check

        async def counted(_: Sessions) -> None:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0.01)
            await check()

        monkeypatch.setattr(Sessions, "check", counted)
        monkeypatch.setattr(readiness, "FRESH_SECONDS", 3600)
        nobody = site.client("")
        answers = await asyncio.gather(*(nobody.call("GET", "/readyz") for _ in range(50)))
        assert {answer.status for answer in answers} == {200}
    assert asked == 1


@pytest.mark.slow
async def test_a_server_whose_disk_is_full_is_not_ready(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", file_limit=2048) as server:
        async with aiohttp.ClientSession() as http, asyncio.timeout(30):
            client = Client(http, server.address, KEY)
            await client.create("s", task="nobody")
            assert (await client.call("GET", "/readyz")).status == 200
            for size in (100_000, 10_000, 1):
                while (await client.append("s", "x" * size)).status == 200:
                    pass
            while (answer := await client.call("GET", "/readyz")).status == 200:
                pass
            assert (answer.status, answer.body) == (503, {"status": "unavailable"})
            assert (await client.call("GET", "/healthz")).status == 200
            assert (await client.call("GET", "/api/v1/sessions/s")).status == 200
