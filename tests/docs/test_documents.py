"""The documents' code runs: every block that is marked ``<!-- executed: tests/docs -->``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import KEY, ServerProcess

ROOT = Path(__file__).parents[2]
MARKED = re.compile(r"<!-- executed: tests/docs -->\n```(\w+)\n(.*?)```", re.DOTALL)

EXCERPT = re.compile(r"<!-- excerpt: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def blocks(language: str) -> list[object]:
    found = list(_blocks(language))
    assert found, f"no {language} block is marked: has the mark changed?"
    return found


def _blocks(language: str) -> Iterator[object]:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, match in enumerate(MARKED.finditer(path.read_text())):
            if match[1] == language:
                yield pytest.param(match[2], id=f"{path.relative_to(ROOT)}-{number}")


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh"))
def test_shell_lines_work_against_a_fresh_server(block: str, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        script = block.replace("http://127.0.0.1:8787", server.address).replace("curl -s", "curl --fail-with-body -s")
        script = script.replace("SESSIONS_KEY=tr_dev_...", f"SESSIONS_KEY={KEY}")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        given = {"SESSIONS_URL": server.address, "SESSIONS_KEY": KEY}
        environment = {**os.environ, "PATH": path, **given, "DATA": str(server.data)}
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(block)
    command = [sys.executable, "-W", "error", str(tmp_path / "example.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "examples")}  # pages import the modules that they show
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def excerpts() -> Iterator[object]:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, match in enumerate(EXCERPT.finditer(path.read_text())):
            yield pytest.param(match[1], match[2], id=f"{path.relative_to(ROOT)}-{number}")


def test_the_marks_of_excerpts_are_those_that_pages_use() -> None:
    assert list(excerpts())


@pytest.mark.parametrize(("source", "lines"), list(excerpts()))
def test_what_a_page_shows_of_a_file_is_in_it(source: str, lines: str) -> None:
    assert lines in (ROOT / source).read_text()


def test_every_page_is_linked_from_the_list_of_pages_and_no_link_is_dead() -> None:
    pages = {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")}
    links = {page: {(page.parent / link).resolve() for link in LINK.findall(page.read_text())} for page in pages}
    assert {link for found in links.values() for link in found if not link.exists()} == set()
    index = ROOT / "docs" / "README.md"
    assert {page for page in pages if ROOT / "docs" in page.parents} - links[index] == {index}


def test_the_decisions_table_of_contents_names_every_area() -> None:
    text = (ROOT / "docs" / "explanation" / "decisions.md").read_text()
    areas = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert areas
    assert re.findall(r"\[([^\]]+)\]\(#", text.partition("\n## ")[0]) == areas


def test_contributing_names_every_folder_of_tests() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert {folder for folder in folders if f"| `tests/{folder}` |" not in table} == set()


def test_the_first_steps_say_which_key() -> None:
    first = MARKED.search((ROOT / "README.md").read_text())
    assert first is not None
    assert " SESSIONS_KEY=tr_dev_...\n" in first[2]
