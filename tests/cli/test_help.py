"""``--help`` of every command, and the page that shows it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from sessions_server.cli import main
from sessions_server.cli.command_line import build_parser

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
SHOWN = re.compile(r"<!-- output: sessions(.*?) --help -->\n```text\n(.*?)```", re.DOTALL)
WIDTH = "100"


def commands(parser: argparse.ArgumentParser, *words: str) -> Iterator[tuple[str, ...]]:
    yield words
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from commands(below, *words, name)


each = pytest.mark.parametrize("words", list(commands(build_parser())), ids=" ".join)


def help_of(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@each
def test_every_command_has_examples_that_are_right(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(words, capsys)
    examples = [line for line in text.splitlines() if line.startswith("  sessions ")]
    assert examples
    assert all(line.startswith(f"  {' '.join(('sessions', *words))}") for line in examples)


@each
def test_the_page_shows_what_help_says(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", WIDTH)
    shown = {tuple(name.split()): text for name, text in SHOWN.findall(PAGE.read_text())}
    assert shown.get(words) == help_of(words, capsys)


def test_the_page_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    codes = re.search(r"Exit codes: (.*)\.", help_of((), capsys))
    assert codes is not None
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    assert [f"{number} {meaning}" for number, meaning in rows] == codes[1].split(", ")


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"sessions {version('sessions')}\n")
