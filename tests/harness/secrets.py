"""Secrets that a test knows, and where they turn up."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote

import attrs


@attrs.define
class Secrets:
    """What must not be written anywhere, by a name for each."""

    known: dict[str, str] = attrs.field(factory=dict, repr=False)

    def add(self, name: str, value: str) -> str:
        """Remember one; return it."""
        assert len(value) >= 12, "too short to be told from other text"
        self.known[name] = value
        return value

    def found_in(self, text: str) -> list[str]:
        """Return the names of those that *text* shows, as they are, encoded for a URL or as base64, or cut at an end."""
        return [name for name, value in self.known.items() if any(form in text for form in _forms(value))]


def _forms(value: str) -> set[str]:
    cut = {value[: -len(value) // 4], value[len(value) // 4 :]} if len(value) >= 24 else set()
    return {value, quote(value, safe=""), base64.b64encode(value.encode()).decode(), *cut}


def processes_of(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def shown_by_ps(pid: int) -> str:
    """Return what everybody on the machine can see of a process: its arguments and the names of its threads."""
    process = Path(f"/proc/{pid}")
    names = [(task / "comm").read_text() for task in (process / "task").iterdir()]
    return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode() + " ".join(names)
