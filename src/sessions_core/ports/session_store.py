"""Port: the durable rows of sessions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import Protocol

from sessions_core.domain.claim import Claim
from sessions_core.domain.ids import EnvironmentId, RunId, SessionId
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Creation, Session, SessionRun, SessionUpdate


class SessionStore(Protocol):
    """Keeps sessions, and makes the claims that decide which run is a session's current one.

    A session belongs to its environment: for another environment it does not exist. The caller's own writes are seen by
    its next read. Run records are written here only together with the claim that makes them current; afterwards they
    are the :class:`~sessions_core.ports.run_store.RunStore`'s, which looks at the same rows.
    """

    __slots__ = ()

    @abstractmethod
    async def create(self, session: Session, run: RunRecord) -> Creation:
        """Store *session* with its first *run*, or get the one that has its external id.

        Atomic: of any number of concurrent calls with one (environment, external id) exactly one gets ``is_new``. A new
        session is stored together with the run record, the history line and the claim (``current_run_id`` is the run's,
        ``current_run_version`` its version). For an existing session one statement replaces its ``trigger_config`` (and
        ``updated_at``) if it is open, unexpired and of the same task; otherwise nothing is written. *run* is not stored
        then.
        """

    @abstractmethod
    async def find(self, environment_id: EnvironmentId, name: str) -> Session | None:
        """Return the session whose friendly id or external id is *name* (the prefix tells which), or None."""

    @abstractmethod
    async def find_many(self, environment_id: EnvironmentId, ids: Collection[SessionId]) -> list[Session]:
        """Return the sessions with these friendly ids that exist, in any order."""

    @abstractmethod
    async def update(self, environment_id: EnvironmentId, session_id: SessionId, change: SessionUpdate) -> Session:
        """Apply *change* and set ``updated_at``. Closed sessions can be updated.

        Raises:
            SessionNotFoundError: No such session.
        """

    @abstractmethod
    async def close(
        self,
        environment_id: EnvironmentId,
        session_id: SessionId,
        reason: str | None,
        *,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Session:
        """Set ``closed_at`` and ``closed_reason`` once; return the row, which keeps the first time and reason.

        If the session's current run or its epoch is not the expected one (where given), nothing is written, and the row
        that is returned is still open.

        Raises:
            SessionNotFoundError: No such session.
        """

    @abstractmethod
    async def mark_sealed(self, session_id: SessionId) -> None:
        """Set ``sealed_at``, once: both channels have been sealed."""

    @abstractmethod
    async def claim_run(
        self,
        run: RunRecord,
        *,
        expected_version: int,
        expected_run: RunId | None = None,
        expected_epoch: int | None = None,
    ) -> Claim:
        """Make *run* its session's current run, unless someone else was faster.

        Stores the run record, the history line and the claim in one transaction. Of any number of concurrent calls with
        the same *expected_version* at most one wins; a loser has stored nothing. A session that is closed, expired or
        unknown is not claimed: LOST.

        Args:
            run: Its ``version`` is ``expected_version + 1`` and becomes the session's.
            expected_version: The version read before.
            expected_run: If given, the session's current run must be this one, too.
            expected_epoch: If given, no later attempt may have begun.
        """

    @abstractmethod
    async def list_runs(self, environment_id: EnvironmentId, session_id: SessionId, limit: int) -> list[SessionRun]:
        """Return the history of a session's runs, newest first, at most *limit*."""

    @abstractmethod
    async def check(self) -> None:
        """Commit something tiny that changes nothing: find out whether writes are possible at all.

        Raises:
            StoreUnavailableError: They are not.
        """
