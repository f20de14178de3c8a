"""Where the figures come from."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
from pathlib import Path
from time import perf_counter

import aiohttp
import attrs

_SYNCS = 100
_BLOCK = b"x" * 4096


@attrs.frozen(kw_only=True)
class Machine:
    """What the figures depend on.

    Attributes:
        sync_ms: How long it takes to write 4 KiB and have them on the disk.
    """

    cores: int
    python: str
    aiohttp: str
    sqlite: str
    sync_ms: float

    def __str__(self) -> str:
        versions = f"Python {self.python}, aiohttp {self.aiohttp}, SQLite {self.sqlite}"
        return f"{self.cores} cores, {versions}, 4 KiB on the disk in {self.sync_ms:.2f} ms"


def describe(folder: Path) -> Machine:
    """Look at this machine, and at the disk below *folder*."""
    return Machine(
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        aiohttp=aiohttp.__version__,
        sqlite=sqlite3.sqlite_version,
        sync_ms=_sync_ms(folder / "sync"),
    )


def _sync_ms(path: Path) -> float:
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            started = perf_counter()
            file.write(_BLOCK)
            os.fsync(file.fileno())
            times.append(perf_counter() - started)
    return statistics.median(times) * 1000
