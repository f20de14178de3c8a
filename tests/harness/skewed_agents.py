"""The same tasks in a process whose clock is off by as many seconds as ``CLOCK_OFF`` says."""

from __future__ import annotations

import os
import pkgutil
import sys
import time
from datetime import datetime, timedelta, tzinfo
from importlib import import_module

import sessions_adapters
from harness.workers_agents import agents

__all__ = ["agents"]

OFF = timedelta(seconds=float(os.environ["CLOCK_OFF"]))
USED = ("postgres", "procrastinate", "profiles", "redis", "s2")
_time = time.time


class _Skewed(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + OFF


def _load_everything() -> None:
    """Import what would be imported later, and see the right time then."""
    for name in USED:
        package = import_module(f"{sessions_adapters.__name__}.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)


def _set_off() -> None:
    time.time = lambda: _time() + OFF.total_seconds()
    for name, module in list(sys.modules.items()):
        if name.startswith("sessions_") and getattr(module, "datetime", None) is datetime:
            module.datetime = _Skewed  # type: ignore[attr-defined]


_load_everything()
_set_off()
