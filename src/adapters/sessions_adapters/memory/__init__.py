"""Every port on dictionaries: the model that other adapters are compared with, and the profile of tests.

Nothing survives the process, and nobody outside it sees anything. Each method may first yield to other tasks, as one
that asks a database would, and then does all it does at once, so it is atomic. Runs on every anyio backend.
"""

from __future__ import annotations

from sessions_adapters.memory.backlog import InMemoryBacklog
from sessions_adapters.memory.change_feed import InMemoryChangeFeed
from sessions_adapters.memory.channel_log import InMemoryChannelLog
from sessions_adapters.memory.dead_letters import InMemoryDeadLetters
from sessions_adapters.memory.environment_store import InMemoryEnvironmentStore, InMemoryTokenLedger
from sessions_adapters.memory.leader_lock import InMemoryLeaderLock
from sessions_adapters.memory.rate_limiter import InMemoryRateLimiter
from sessions_adapters.memory.run_store import InMemoryRunStore
from sessions_adapters.memory.session_index import InMemorySessionIndex
from sessions_adapters.memory.session_store import InMemorySessionStore
from sessions_adapters.memory.tables import Tables
from sessions_adapters.memory.waitpoint_store import InMemoryWaitpointStore, InMemoryWaitRegistry

__all__ = [
    "InMemoryBacklog",
    "InMemoryChangeFeed",
    "InMemoryChannelLog",
    "InMemoryDeadLetters",
    "InMemoryEnvironmentStore",
    "InMemoryLeaderLock",
    "InMemoryRateLimiter",
    "InMemoryRunStore",
    "InMemorySessionIndex",
    "InMemorySessionStore",
    "InMemoryTokenLedger",
    "InMemoryWaitRegistry",
    "InMemoryWaitpointStore",
    "Tables",
]
