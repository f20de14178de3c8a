"""Creating, finding, changing, listing and closing sessions, and handing them over to a new run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from sessions_core.domain.bounded import BoundedDict
from sessions_core.domain.environment import Environment
from sessions_core.domain.events import SessionClosed, SessionCreated
from sessions_core.domain.ids import SESSION_PREFIX, EnvironmentId, ExternalId, RunId, SessionId, parse_external_id
from sessions_core.domain.pagination import Page, PageRequest, SessionFilter, make_page
from sessions_core.domain.run import REASON_MANUAL, REASONS, Progress, RunRecord, first_run
from sessions_core.domain.session import Session, SessionRun, SessionUpdate, check_metadata
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import (
    ClaimExhaustedError,
    InvalidError,
    RunNotFoundError,
    SessionNotFoundError,
    StaleRunError,
    TaskMismatchError,
)
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.clock import Clock, Ids
from sessions_core.ports.observer import Observer
from sessions_core.ports.run_store import RunStore
from sessions_core.ports.session_index import SessionIndex
from sessions_core.ports.session_store import SessionStore
from sessions_core.services.closing import Closing
from sessions_core.services.run_manager import HandOver, RunManager

DEFAULT_TYPE: Final = "chat.agent"
FIRST_PAGE: Final = PageRequest()
KNOWN_SESSIONS: Final = 20_000


def _check_metadata(_: object, __: object, metadata: Mapping[str, Any] | None) -> None:
    check_metadata(metadata)


@attrs.frozen(kw_only=True)
class NewSession:
    """What a caller gives to create a session.

    Attributes:
        task: Names the task that its runs have, for good.
        trigger_config: What its runs are started with.
        external_id: The caller's own name for it; surrounding spaces are cut off.
        type: A label to list by; the default is the one that the official clients give.

    Raises:
        InvalidError: The external id is empty, too long or looks like a friendly id, or the metadata is no JSON object or too large.
    """

    task: str
    trigger_config: TriggerConfig = attrs.field(factory=TriggerConfig)
    external_id: ExternalId | None = attrs.field(default=None, converter=attrs.converters.optional(parse_external_id))
    type: str = DEFAULT_TYPE
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = attrs.field(default=None, validator=_check_metadata)
    expires_at: datetime | None = None


@attrs.frozen(kw_only=True)
class CreatedSession:
    """A session with a live run. ``is_cached`` tells that it was there before."""

    session: Session
    run_id: RunId
    is_cached: bool


@attrs.define(kw_only=True)
class SessionService:
    """Use cases around the session's row. Everything is confined to the environment that is named."""

    store: SessionStore
    runs: RunStore
    index: SessionIndex
    log: ChannelLog
    run_manager: RunManager
    closing: Closing
    clock: Clock
    ids: Ids
    observer: Observer
    _known: BoundedDict[tuple[str, str], Session] = attrs.field(init=False, factory=lambda: BoundedDict(KNOWN_SESSIONS))

    async def create(self, environment: Environment, spec: NewSession) -> CreatedSession:
        """Create a session with its first run, or get the open one with its external id and ensure that a run is alive.

        Raises:
            InvalidError: A value breaks a rule.
            TaskMismatchError: The external id belongs to another task's session; nothing was written.
            ClosedError: The session with this external id is closed or expired; nothing was written.
            ClaimExhaustedError: Others kept changing its run.
        """
        session, run = self._new(environment, spec)
        if session.refusal(session.created_at):
            await self._check_expiry(environment, spec)
        creation = await self.store.create(session, run)
        if not creation.is_new and not creation.refreshed:
            raise self._why_not(creation.session, spec)
        self.observer(
            SessionCreated(environment_id=environment.id, session_id=creation.session.id, is_cached=not creation.is_new)
        )
        if creation.is_new:
            await self.run_manager.dispatch(run)
            stored = creation.session
        else:
            stored = await self.run_manager.ensure_run(creation.session)
        self._remember(stored)
        assert stored.current_run_id is not None
        return CreatedSession(session=stored, run_id=stored.current_run_id, is_cached=not creation.is_new)

    async def get(self, environment_id: EnvironmentId, name: str) -> Session:
        """Return the session with this friendly id or external id, as stored now.

        Raises:
            SessionNotFoundError: This environment has no such session.
        """
        session = await self.store.find(environment_id, name)
        if session is None:
            raise SessionNotFoundError(name)
        self._remember(session)
        return session

    async def find_cached(self, environment_id: EnvironmentId, name: str) -> Session | None:
        """Return the session, perhaps as it was some time ago, or None.

        Its ids, task and expiry never change; for everything else the log's guards decide.
        """
        known = self._known.get((environment_id, name))
        if known is not None:
            return known
        session = await self.store.find(environment_id, name)
        if session is not None:
            self._remember(session)
        return session

    async def update(self, environment_id: EnvironmentId, name: str, change: SessionUpdate) -> Session:
        """Replace tags or metadata.

        Raises:
            SessionNotFoundError: This environment has no such session.
        """
        session = await self.get(environment_id, name)
        return await self.store.update(environment_id, session.id, change)

    async def close(
        self,
        environment_id: EnvironmentId,
        name: str,
        reason: str | None = None,
        *,
        calling_run: RunId | None = None,
        epoch: int | None = None,
    ) -> Session:
        """Close the session for good and seal its channels. Closing again changes nothing and returns the row.

        Args:
            environment_id: The environment.
            name: Either id.
            reason: Kept with the first close.
            calling_run: Given by a run that closes its own session; it must still be the current one.
            epoch: The calling attempt's epoch, if it knows it.

        Raises:
            SessionNotFoundError: This environment has no such session.
            StaleRunError: The calling run was replaced.
        """
        session = await self.get(environment_id, name)
        if session.closed_at is None:
            session = await self.store.close(
                environment_id, session.id, reason, expected_run=calling_run, expected_epoch=epoch
            )
            if session.closed_at is None:
                raise StaleRunError(calling_run, epoch=epoch)
            self.observer(SessionClosed(environment_id=environment_id, session_id=session.id))
            self._remember(session)
        if session.sealed_at is None:
            await self.closing.seal(session)
            session = await self.get(environment_id, session.id)
        return session

    async def end_and_continue(
        self,
        environment_id: EnvironmentId,
        name: str,
        calling_run: RunId,
        reason: str,
        *,
        epoch: int | None = None,
        progress: Progress | None = None,
    ) -> HandOver:
        """Hand the session over from *calling_run*, which goes on to end by itself, to a new run.

        ``upgrade-required`` is appended to ``out`` as the last record of the calling run, whose writes are refused
        from then on.

        Args:
            environment_id: The environment.
            name: Either id of the session.
            calling_run: The run that hands over.
            reason: Kept in the history; one that is not known counts as ``manual``.
            epoch: The calling attempt's epoch, if it knows it.
            progress: How far the calling run has come, if it knows more than the turn-completes on ``out`` tell.

        Raises:
            SessionNotFoundError: This environment has no such session.
            RunNotFoundError: This environment has no such run.
            ClosedError: The session is closed or expired.
            StaleRunError: *epoch* is given and over.
        """
        session = await self.get(environment_id, name)
        calling = await self.get_run(environment_id, calling_run)
        if refusal := session.refusal(self.clock.now()):
            raise refusal
        if epoch is not None and epoch != session.epoch:
            raise StaleRunError(calling_run)
        previous = calling if progress is None else attrs.evolve(calling, end=progress)
        successor = self.run_manager.successor(session, previous, reason if reason in REASONS else REASON_MANUAL)
        if session.current_run_id == calling_run and await self.run_manager.hand_over(
            session, successor, calling=calling_run, epoch=epoch
        ):
            await self.run_manager.withdraw(calling)
            return HandOver(run_id=successor.id, swapped=True)
        fresh = await self.get(environment_id, session.id)
        if refusal := fresh.refusal(self.clock.now()):
            raise refusal
        if fresh.current_run_id == calling_run:
            raise StaleRunError(calling_run)
        if fresh.current_run_id is None:
            raise ClaimExhaustedError(session.key, 1)
        return HandOver(run_id=fresh.current_run_id, swapped=False)

    async def list_sessions(
        self, environment: Environment, wanted: SessionFilter | None = None, request: PageRequest = FIRST_PAGE
    ) -> Page:
        """Return a page of sessions, newest first, as they are stored now; of all of them if nothing is *wanted*.

        A page may hold fewer sessions than asked for although there is a next one (rows that the index shows but the
        store no longer admits are left out), so follow the cursors.
        """
        wanted = wanted or SessionFilter(environment_id=environment.id)
        page = make_page(await self.index.select(environment, wanted, request), request)
        found = await self.store.find_many(environment.id, [entry.id for entry in page.items])
        by_id = {session.id: session for session in found}
        now = self.clock.now()
        kept = (by_id[entry.id] for entry in page.items if entry.id in by_id)
        return attrs.evolve(page, items=tuple(session for session in kept if wanted.admits(session, now)))

    async def list_runs(self, environment_id: EnvironmentId, name: str, limit: int = 100) -> list[SessionRun]:
        """Return the session's runs, newest first.

        Raises:
            SessionNotFoundError: This environment has no such session.
        """
        session = await self.get(environment_id, name)
        return await self.store.list_runs(environment_id, session.id, limit)

    async def get_run(self, environment_id: EnvironmentId, run_id: RunId) -> RunRecord:
        """Return a run.

        Raises:
            RunNotFoundError: This environment has no such run.
        """
        run = await self.find_run(environment_id, run_id)
        if run is None:
            raise RunNotFoundError(run_id)
        return run

    async def find_run(self, environment_id: EnvironmentId, run_id: RunId) -> RunRecord | None:
        """Return a run, or None if this environment has no such one."""
        return await self.runs.find(environment_id, run_id)

    def _new(self, environment: Environment, spec: NewSession) -> tuple[Session, RunRecord]:
        now = self.clock.now()
        session = Session(
            id=SessionId(SESSION_PREFIX + self.ids.new()),
            environment=environment,
            type=spec.type,
            task=spec.task,
            trigger_config=spec.trigger_config,
            created_at=now,
            updated_at=now,
            external_id=spec.external_id,
            tags=spec.tags,
            metadata=spec.metadata,
            expires_at=spec.expires_at,
        )
        run = first_run(session, self.run_manager.new_run_id(), now)
        return attrs.evolve(session, current_run_id=run.id, current_run_version=run.version), run

    async def _check_expiry(self, environment: Environment, spec: NewSession) -> None:
        """Refuse an expiry in the past for a new session. For one that is there the value is ignored like all others."""
        name = spec.external_id
        if name is None or await self.store.find(environment.id, name) is None:
            raise InvalidError("expiresAt", "must be in the future")

    def _why_not(self, stored: Session, spec: NewSession) -> Exception:
        if stored.task != spec.task:
            return TaskMismatchError(stored.key, spec.task, stored.task)
        return stored.refusal(self.clock.now()) or ClaimExhaustedError(stored.key, 1)

    def _remember(self, session: Session) -> None:
        self._known[session.environment.id, session.id] = session
        if session.external_id is not None:
            self._known[session.environment.id, session.external_id] = session
