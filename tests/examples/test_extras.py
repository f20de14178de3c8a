"""Which extras an embedder needs: none without other systems and root keys, and an error that names the one that is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HIDE = """
import importlib.util, sys

class Hider:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"aiohttp", "cryptography", "jwt", "msgspec", "prometheus_client", "uvloop"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hider())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in {"aiohttp", "jwt"} else found(name)
"""
OPEN = """
import asyncio, pathlib
from sessions_adapters.profiles import open_sessions

async def main():
    async with open_sessions(sys.argv[1], data=pathlib.Path(sys.argv[2])) as sessions:
        await sessions.check()

asyncio.run(main())
"""
KEEP_A_KEY = """
import asyncio, pathlib
from sessions_adapters.profiles import open_environments
from sessions_core.domain.environment import Environment, EnvironmentType

async def main():
    async with open_environments(data=pathlib.Path(sys.argv[1]), create=True) as environments:
        environment = Environment(id="env", organization_id="org", project_id="proj", type=EnvironmentType.DEVELOPMENT)
        await environments.create(environment, "tr_dev_" + "a" * 24)

asyncio.run(main())
"""


def without_extras(script: str, *arguments: str) -> tuple[int, str]:
    """Run *script* where only attrs and anyio are installed; return its exit code and its last line."""
    command = [sys.executable, "-c", HIDE + script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    return done.returncode, (done.stderr.splitlines() or [""])[-1]


@pytest.mark.parametrize("profile", ["memory", "embedded"])
def test_one_process_needs_no_extra(profile: str, tmp_path: Path) -> None:
    assert without_extras(OPEN, profile, str(tmp_path / "data")) == (0, "")
    assert not (tmp_path / "data" / "encryption.key").exists()


def test_keeping_a_root_key_without_the_extra_names_it(tmp_path: Path) -> None:
    code, line = without_extras(KEEP_A_KEY, str(tmp_path))
    assert code != 0
    assert "sessions[keys]" in line


def test_the_command_and_the_server_without_their_extra_name_it() -> None:
    for script in ("import sessions_server.app", "from sessions_server.cli import main; main()"):
        code, line = without_extras(script)
        assert code != 0
        assert "sessions[server]" in line
