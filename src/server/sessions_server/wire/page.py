"""Bodies of the chat page's own routes."""

from __future__ import annotations

from sessions_server.wire.values import Wire


class PageAgent(Wire, frozen=True, kw_only=True):
    """An agent to choose; ``summary`` is the first line of its docstring."""

    task: str
    summary: str


class PageAgents(Wire, frozen=True, kw_only=True):
    """What ``GET /page/agents`` answers."""

    agents: list[PageAgent]


class CreatePageSession(Wire, frozen=True, kw_only=True):
    """Body of ``POST /page/sessions``."""

    task: str


class CreatePageToken(Wire, frozen=True, kw_only=True):
    """Body of ``POST /page/tokens``; ``session`` is the external id that the page made up."""

    session: str


class PageSession(Wire, frozen=True, kw_only=True):
    """A session of the page, and a token for it alone."""

    id: str
    external_id: str
    token: str
