"""When an engine that has failed is asked again.

The sweep hands out a run that the engine does not have at every pass, and so does every append to its session. So a failure
is remembered, and until the next try is due all others fail at once, without asking anybody. An engine that does not answer
costs a caller its time-out once in a pause, and not once for each run.
"""

from __future__ import annotations

import random
from typing import Final

import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.ids import RunId

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
LONGEST_WAIT: Final = 300.0
"""An engine that asks for more is asked again after this."""
KNOWN_REFUSALS: Final = 1000


@attrs.frozen
class Rest:
    """A pause after *failures* in a row, up to a moment of a monotonic clock."""

    failures: int = 0
    until: float = 0.0

    def after_failure(self, now: float, wait: float = 0.0) -> Rest:
        """Return the pause after one more failure, about twice as long as this one, or *wait* seconds if that is more."""
        pause = min(FIRST_PAUSE * (1 << min(self.failures, 16)), LONGEST_PAUSE)
        spread = pause * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load
        return Rest(self.failures + 1, now + max(spread, min(wait, LONGEST_WAIT)))


@attrs.define(eq=False)
class Rests:
    """The pauses of the engine as a whole, and of single runs that it refuses while it takes others."""

    _engine: Rest = attrs.field(init=False, factory=Rest)
    _runs: BoundedDict[RunId, Rest] = attrs.field(init=False, factory=lambda: BoundedDict[RunId, Rest](KNOWN_REFUSALS))

    def may_try(self, run_id: RunId, now: float, patience: float) -> bool:
        """Tell whether the run may be handed over now. After a failure of the engine, one call in *patience* seconds may."""
        if now < self._engine.until or now < self._runs.get(run_id, Rest()).until:
            return False
        if self._engine.failures:
            self._engine = attrs.evolve(self._engine, until=now + patience)
        return True

    def succeeded(self, run_id: RunId) -> None:
        """Note that the engine has the run."""
        self._engine = Rest()
        self._runs.pop(run_id, None)

    def engine_failed(self, run_id: RunId, now: float, wait: float = 0.0) -> None:
        """Note that the engine gave no answer, or says that it can take nothing now and perhaps how long to *wait*.

        The run rests for longer than the engine, so that the next try is another run's: perhaps it is this one that the
        engine cannot bear.
        """
        self._engine = self._engine.after_failure(now, wait)
        known = self._runs.get(run_id, Rest())
        self._runs[run_id] = attrs.evolve(known, failures=known.failures + 1).after_failure(now, wait)

    def run_refused(self, run_id: RunId, now: float, wait: float = 0.0) -> None:
        """Note that the engine answers, but does not take this run, and perhaps how long to *wait* with it."""
        self._engine = Rest()
        self._runs[run_id] = self._runs.get(run_id, Rest()).after_failure(now, wait)
