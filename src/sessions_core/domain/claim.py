"""The claim: the optimistic swap of a session's current run."""

from __future__ import annotations

from enum import Enum


class Claim(Enum):
    """Outcome of trying to make a new run the session's current one.

    Guarded by ``current_run_version``: of all callers that read the same version at most one wins. Losing is a daily
    event, not an error; the loser has stored nothing and looks at the winner's run instead.
    """

    WON = "won"
    LOST = "lost"
