"""A test kit for those who write tasks or adapters.

:func:`run_agents` runs tasks without a server, in virtual time; see docs/how-to/test-an-agent.md. :class:`ManualClock` is
for tests of adapters.
"""

from sessions_core.testing.clock import ManualClock
from sessions_core.testing.kit import Kit, SessionUnderTest, run_agents
from sessions_core.testing.reading import CompletedTurn
from sessions_core.testing.virtual_time import VirtualTimeLoop

__all__ = ["CompletedTurn", "Kit", "ManualClock", "SessionUnderTest", "VirtualTimeLoop", "run_agents"]
