"""Runs handed to workers on other machines by Procrastinate, on a Postgres database.

Procrastinate carries the hand-over alone: one job says that a run waits for a worker, and is deleted when the run has ended.
What a run is, and how it stands, says its record. Runs on asyncio only.
"""

from __future__ import annotations

from sessions_core.errors import MissingExtraError

try:
    import procrastinate as _procrastinate
except ImportError as exc:
    raise MissingExtraError("The procrastinate dispatcher", "procrastinate", "procrastinate") from exc

from sessions_adapters.procrastinate.config import ProcrastinateConfig, WorkerConfig
from sessions_adapters.procrastinate.dispatcher import ProcrastinateRunDispatcher, open_dispatcher
from sessions_adapters.procrastinate.schema import find_problem, migrate

__all__ = [
    "ProcrastinateConfig",
    "ProcrastinateRunDispatcher",
    "WorkerConfig",
    "find_problem",
    "migrate",
    "open_dispatcher",
]

_ = _procrastinate
