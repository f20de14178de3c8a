"""The ten lines: the same everywhere they are shown, and an agent that ``sessions serve`` runs."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from harness.client import Client
from harness.desk import EXAMPLES
from harness.server import KEY, ServerProcess

ROOT = EXAMPLES.parent
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/your-first-agent.md"])
def test_the_ten_lines_are_the_same_on_every_page(page: str) -> None:
    lines = (EXAMPLES / "agent.py").read_text()
    assert len(lines.splitlines()) == 10
    assert BLOCK.findall((ROOT / page).read_text())[0] == lines


@pytest.mark.slow
async def test_the_ten_lines_answer_over_http(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(EXAMPLES)}
    with ServerProcess(tmp_path / "data", agents="agent:agents", environment=environment) as server:
        async with aiohttp.ClientSession() as http:
            client = Client(http, server.address, KEY)
            await client.create("hello")
            await client.say("hello", "good morning")
            text, _ = await client.turn("hello")
    assert text == "you said: good morning"
