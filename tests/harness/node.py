"""Node with the official JavaScript clients: ``make clients`` installs them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from harness.services import CannotStartError, Service

CLIENTS: Final = Path(__file__).parents[1] / "javascript"
OLDEST: Final = 20


@contextmanager
def _found() -> Iterator[str]:
    program = shutil.which("node")
    if program is None or _version(program) < OLDEST:
        raise CannotStartError(f"there is no Node {OLDEST} or newer")
    if not (CLIENTS / "node_modules" / "@trigger.dev" / "sdk").is_dir():
        raise CannotStartError("the JavaScript clients are not installed: make clients")
    yield program


def _version(program: str) -> int:
    """Return the major version (``v20.1.0`` is 20)."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    return int(said.removeprefix("v").partition(".")[0])


NODE: Final = Service(_found)
"""Its value is the program."""
