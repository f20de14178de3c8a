"""What runs do to a session's ``out``, around HTTP."""

from __future__ import annotations

from harness.in_process import ENVIRONMENT, Site
from sessions_core.domain.channel import Io, NewRecord


async def write_out(site: Site, name: str, *records: NewRecord) -> None:
    """Append to ``out`` without naming an epoch."""
    session = await site.sessions.sessions.find_cached(ENVIRONMENT, name)
    assert session is not None
    await site.sessions.channels.append(session, Io.OUT, records)


async def trim(site: Site, name: str, first_kept: int) -> None:
    """Let go of what stands before *first_kept* on ``out``."""
    session = await site.sessions.sessions.find_cached(ENVIRONMENT, name)
    assert session is not None
    log, channel = site.sessions.ports.log, session.channel(Io.OUT)
    await log.trim(channel, first_kept, guard=(await log.tail(channel)).guard)
