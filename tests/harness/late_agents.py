"""The same tasks in a process whose clock is five minutes behind."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta, tzinfo

from harness.workers_agents import agents

__all__ = ["agents"]

LATE = timedelta(minutes=5)
_time = time.time


class _Late(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) - LATE


def _set_back() -> None:
    time.time = lambda: _time() - LATE.total_seconds()
    for name, module in list(sys.modules.items()):
        if name.startswith("sessions_") and getattr(module, "datetime", None) is datetime:
            module.datetime = _Late  # type: ignore[attr-defined]


_set_back()
