"""Sessions: a durable, task-bound, bidirectional stream that outlives any single run.

This module has the names that an embedding service needs; everything else is found where it is defined. Chat agents are
written with :mod:`sessions_core.chat`, which also reads what they answered.
``sessions_adapters.profiles.open_sessions`` opens a ready :class:`Sessions`.
"""

from sessions_core.agents import Agents, Run
from sessions_core.domain.channel import Appended, Batch, Channel, Envelope, Io, Record
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.events import Event
from sessions_core.domain.ids import EnvironmentId, ExternalId, OrganizationId, PartId, ProjectId, RunId, SessionId
from sessions_core.domain.pagination import Cursor, Direction, Page, PageRequest, SessionFilter
from sessions_core.domain.session import Session, SessionRun, SessionUpdate
from sessions_core.domain.status import RunStatus, SessionStatus
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import SessionsError
from sessions_core.facade import Ports, Sessions, Settings
from sessions_core.inbox import Inbox, Message
from sessions_core.outbox import Outbox
from sessions_core.ports.observer import Observer
from sessions_core.services.run_manager import HandOver
from sessions_core.services.session_service import CreatedSession, NewSession
from sessions_core.services.sweep import SweepConfig
from sessions_core.services.wait_service import WaitRequest

__all__ = [
    "Agents",
    "Appended",
    "Batch",
    "Channel",
    "CreatedSession",
    "Cursor",
    "Direction",
    "Envelope",
    "Environment",
    "EnvironmentId",
    "EnvironmentType",
    "Event",
    "ExternalId",
    "HandOver",
    "Inbox",
    "Io",
    "Message",
    "NewSession",
    "Observer",
    "OrganizationId",
    "Outbox",
    "Page",
    "PageRequest",
    "PartId",
    "Ports",
    "ProjectId",
    "Record",
    "Run",
    "RunId",
    "RunStatus",
    "Session",
    "SessionFilter",
    "SessionId",
    "SessionRun",
    "SessionStatus",
    "SessionUpdate",
    "Sessions",
    "SessionsError",
    "Settings",
    "SweepConfig",
    "TriggerConfig",
    "WaitRequest",
]
