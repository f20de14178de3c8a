"""What a server's settings say about the runs that its process carries out."""

from __future__ import annotations

from typing import Final

from sessions_adapters.profiles import Workload
from sessions_core.facade import Settings
from sessions_core.services.sweep import SweepConfig
from sessions_server.config import Config

BEATS_PER_STALL: Final = 7.5


def settings_of(config: Config) -> Settings:
    """Return how the core is to behave."""
    return Settings(
        owns_data=True,
        drain=config.drain,
        sweep=SweepConfig(stall=config.stall),
        heartbeat=config.stall / BEATS_PER_STALL,
    )


def workload_of(config: Config) -> Workload:
    """Return which runs this process takes."""
    named = tuple(name.strip() for name in (config.queues or "").split(",") if name.strip())
    return Workload(queues=named or None, version=config.worker_version, concurrency=config.concurrency)
