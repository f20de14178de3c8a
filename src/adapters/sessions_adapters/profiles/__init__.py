"""Named choices of adapters. An adapter is imported only when something is opened that uses it."""

from __future__ import annotations

from sessions_adapters.profiles.backends import (
    CLICKHOUSE,
    DATABASE_NAME,
    EMBEDDED,
    LOCAL,
    MEMORY,
    POSTGRES,
    PROCRASTINATE,
    PROFILES,
    SCALE,
    STORE,
    WEBHOOK,
    Backends,
)
from sessions_adapters.profiles.dispatchers import Workload
from sessions_adapters.profiles.doctor import diagnose
from sessions_adapters.profiles.findings import Finding, Health, reason
from sessions_adapters.profiles.keys import add_encryption_key
from sessions_adapters.profiles.opening import migrate, open_environments, open_sessions
from sessions_adapters.profiles.replication import Replication, ReplicationSettings, open_replication
from sessions_adapters.profiles.tracing import find_tracers
from sessions_adapters.system import RandomIds

__all__ = [
    "CLICKHOUSE",
    "DATABASE_NAME",
    "EMBEDDED",
    "LOCAL",
    "MEMORY",
    "POSTGRES",
    "PROCRASTINATE",
    "PROFILES",
    "SCALE",
    "STORE",
    "WEBHOOK",
    "Backends",
    "Finding",
    "Health",
    "Replication",
    "ReplicationSettings",
    "Workload",
    "add_encryption_key",
    "diagnose",
    "find_tracers",
    "migrate",
    "new_id",
    "open_environments",
    "open_replication",
    "open_sessions",
    "reason",
]


def new_id() -> str:
    """Return a fresh id of 25 characters, for things made outside a running server."""
    return RandomIds().new()
