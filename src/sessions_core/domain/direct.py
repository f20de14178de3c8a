"""What a direct writer's append has to hold true: whose right to write it uses, and what it demands itself."""

from __future__ import annotations

import attrs

from sessions_core.domain.guard import Guard
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session


@attrs.frozen(kw_only=True)
class Tenure:
    """The time for which a session has one run: who got credentials then may write ``out`` until it is over.

    Credentials that are issued before the run has begun are for its first attempt, the others for the attempt under way.

    Attributes:
        run_version: The ``current_run_version`` of the run that they were issued to.
        last_epoch: The last epoch under which they work.
    """

    run_version: int
    last_epoch: int

    @classmethod
    def of(cls, session: Session | None, run: RunRecord | None = None) -> Tenure:
        """Return the tenure of *session*'s current run; without a session, of the first one that it will have.

        Args:
            session: Read before *run*: what has begun in between is known to the run alone.
            run: The current one; None if there is none.
        """
        if session is None:
            return FIRST_TENURE
        last_epoch = session.epoch + 1 if run is None or run.attempt == 0 else run.epoch
        return cls(run_version=session.current_run_version, last_epoch=last_epoch)

    def is_over(self, session: Session) -> bool:
        """Tell whether *session*, as read at any time, shows that another run or attempt has taken over."""
        return session.current_run_version > self.run_version or session.epoch > self.last_epoch

    def covers(self, guard: Guard) -> bool:
        """Tell whether the guard of ``out`` shows no later attempt."""
        return not guard.is_sealed and guard.number <= self.last_epoch


FIRST_TENURE = Tenure(run_version=1, last_epoch=1)


@attrs.frozen(kw_only=True)
class Demand:
    """What an append asks of its channel beside the right to write. None asks for nothing.

    Attributes:
        guard: The guard that the channel must have.
        tail: The seq that the first of its records must get.
    """

    guard: Guard | None = None
    tail: int | None = None


NO_DEMAND = Demand()
