"""``--agents``: found, or a message that says what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from sessions_core.agents import Agents
from sessions_core.errors import InvalidError
from sessions_server.cli.loading import load_agents

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Write]:
    """Writes modules into the current directory, which is on nobody's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)

    def write_module(name: str, text: str) -> None:
        (tmp_path / name).write_text(text)

    yield write_module
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_agents_are_found_in_the_current_directory_which_stays_on_the_path(write: Write, tmp_path: Path) -> None:
    write("one_module.py", "from sessions_core.chat import Agents\nagents = Agents()")
    assert isinstance(load_agents("one_module:agents"), Agents)
    load_agents("one_module:agents")
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    "path", ["", "two_module", "two_module:", ":agents", "two module:agents", ".x:agents", "a:b.c"]
)
def test_the_form_is_checked_first(write: Write, path: str) -> None:
    with pytest.raises(InvalidError, match=r"^--agents must be module:attribute"):
        load_agents(path)


@pytest.mark.parametrize("path", ["no_such_module:agents", "no_such.module:agents", "json.no_such:agents"])
def test_a_missing_module_is_called_missing(write: Write, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidError, match="cannot be found"):
        load_agents(path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def boom():\n    raise ValueError('the reason')\nboom()", "ValueError: the reason"),
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("def x(:", "SyntaxError"),
    ],
    ids=["raises", "misses a dependency", "is no Python"],
)
def test_a_module_that_fails_shows_its_own_traceback(
    write: Write, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("three_module.py", text)
    with pytest.raises(InvalidError, match="failed as it was imported"):
        load_agents("three_module:agents")
    err = capsys.readouterr().err
    assert says in err
    assert "three_module.py" in err
    assert "importlib" not in err


def test_a_missing_attribute_and_a_wrong_one_are_told_apart(write: Write) -> None:
    write("four_module.py", "agents = 4")
    with pytest.raises(InvalidError, match="'agent', which module four_module does not have"):
        load_agents("four_module:agent")
    with pytest.raises(InvalidError, match="names a int, not an Agents"):
        load_agents("four_module:agents")
