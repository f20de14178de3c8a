"""What is asked about."""

from __future__ import annotations

from typing import Final

import attrs

from harness.authorization.oracle import Presence, Row

THERE, ABSENT, GHOST = Presence.THERE, Presence.ABSENT, Presence.GHOST
BY_EXTERNAL: Final = Row(
    name="by external id",
    subject="chat",
    session="{chat_key}",
    run="{chat_run}",
    waitpoint="{chat_waitpoint}",
    home=THERE,
    abroad=THERE,
)
BY_FRIENDLY: Final = Row(
    name="by friendly id",
    subject="chat",
    session="{chat_id}",
    run="{chat_run}",
    waitpoint="{chat_waitpoint}",
    home=THERE,
    abroad=GHOST,
)
OTHER: Final = Row(
    name="another session",
    subject="page",
    session="{page_key}",
    run="{page_run}",
    waitpoint="{page_waitpoint}",
    home=THERE,
    abroad=ABSENT,
)
MISSING: Final = Row(
    name="no session",
    subject="team",
    session="{absent}",
    run="run_nope",
    waitpoint="waitpoint_nope",
    home=ABSENT,
    abroad=ABSENT,
)
UNREAL: Final = Row(
    name="no such friendly id",
    subject="ghost",
    session="{ghost}",
    run="run_nope",
    waitpoint="waitpoint_nope",
    home=GHOST,
    abroad=GHOST,
)
FOREIGN: Final = Row(
    name="a foreign session",
    subject="foreign",
    session="{foreign_id}",
    run="{foreign_run}",
    waitpoint="{foreign_waitpoint}",
    home=GHOST,
    abroad=THERE,
)
SESSIONS: Final = (BY_EXTERNAL, BY_FRIENDLY, OTHER, MISSING, UNREAL, FOREIGN)
RUNS: Final = (
    attrs.evolve(BY_EXTERNAL, name="its run", abroad=GHOST),
    attrs.evolve(OTHER, name="another session's run"),
    attrs.evolve(MISSING, name="no run", subject="no run"),
    attrs.evolve(FOREIGN, name="a foreign run", subject="foreign run"),
)
"""Who may read a session may read its run; what no run serves gives nobody a right to one."""
NOTHING: Final = (attrs.evolve(MISSING, name="nothing"),)
