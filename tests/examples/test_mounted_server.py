"""The server's HTTP interface inside somebody's application."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import anyio
import pytest

from harness.client import Client
from harness.desk import DeskProcess
from harness.server import KEY
from sessions_adapters.profiles import open_environments
from sessions_core import Environment

pytestmark = pytest.mark.slow


async def test_an_application_answers_its_own_routes_and_the_servers(tmp_path: Path) -> None:
    async with open_environments(data=tmp_path, create=True) as environments:
        await environments.create(Environment(id="env_one"), KEY)
    with DeskProcess(tmp_path, script="mounted_server.py") as process:
        async with aiohttp.ClientSession() as http:
            client = Client(http, process.address, KEY)
            assert (await client.call("GET", "/hello")).body == "a route of our own"
            assert (await client.create("chat")).status == 201
            await client.say("chat", "good morning")
            text, end = await client.turn("chat")
            assert text == "you said: good morning"
            (complete,) = [record for record in await client.records("chat", "out") if "headers" in record]
            assert "public-access-token" in dict(complete["headers"]), "the client's token is refreshed"
            async with client.subscribe("chat", after=end) as (_, frames):
                assert await anyio.to_thread.run_sync(process.stop) == 0
                assert [frame.records async for frame in frames if frame.records] == []
