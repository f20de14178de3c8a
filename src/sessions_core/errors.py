"""Every error the library raises on purpose.

::

    SessionsError
    ├── NotFoundError
    │   ├── SessionNotFoundError
    │   ├── RunNotFoundError
    │   ├── WaitpointNotFoundError
    │   ├── EnvironmentNotFoundError
    │   └── AccessKeyNotFoundError
    ├── InvalidError                    the caller can fix it; ``field`` names the part that is wrong
    │   └── InvalidCursorError
    ├── RecordTooLargeError             a record is over the limit of the log
    ├── ConflictError
    │   ├── TaskMismatchError
    │   ├── ExternalIdImmutableError
    │   ├── GuardMismatchError
    │   ├── TailMismatchError
    │   ├── StaleRunError
    │   ├── AttemptBegunError
    │   └── ClaimExhaustedError
    ├── ClosedError
    │   ├── SessionClosedError
    │   └── SessionExpiredError
    ├── UnavailableError                try again later; nothing is known to have been stored
    │   ├── StoreUnavailableError
    │   ├── ChannelUnavailableError
    │   ├── DispatcherUnavailableError
    │   ├── IndexUnavailableError
    │   ├── WaitRegistryUnavailableError
    │   └── RateLimiterUnavailableError
    ├── IncompatibleStoreError          the stored data cannot be used as it is, by this version or with this key
    │   └── StoreInUseError             another process owns it
    ├── IndexRefusedError               the index does not take these rows, now or later
    ├── StrayCancellationError          something below was cancelled that nobody here had cancelled
    └── MissingExtraError               what was chosen needs a package that is not installed; an ImportError, too

Each class carries the facts as attributes; ``str(error)`` is a sentence that names the thing and holds no
secret and no driver text (the driver's exception is kept as ``__cause__``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from sessions_core.domain.guard import Guard


class SessionsError(Exception):
    """Root of everything this library raises on purpose."""

    @property
    def message(self) -> str:
        """One sentence for the person who sees it."""
        return "Something went wrong"

    def __str__(self) -> str:
        return self.message


class NotFoundError(SessionsError):
    """The thing does not exist in this environment."""


@attrs.define(eq=False)
class SessionNotFoundError(NotFoundError):
    """No session with this friendly id or external id."""

    session: str

    @property
    def message(self) -> str:
        return f"Session {self.session!r} not found"


@attrs.define(eq=False)
class RunNotFoundError(NotFoundError):
    """No run with this id."""

    run: str

    @property
    def message(self) -> str:
        return f"Run {self.run!r} not found"


@attrs.define(eq=False)
class WaitpointNotFoundError(NotFoundError):
    """No waitpoint with this id."""

    waitpoint: str

    @property
    def message(self) -> str:
        return f"Waitpoint {self.waitpoint!r} not found"


@attrs.define(eq=False)
class EnvironmentNotFoundError(NotFoundError):
    """No environment with this id."""

    environment: str

    @property
    def message(self) -> str:
        return f"Environment {self.environment!r} not found"


@attrs.define(eq=False)
class AccessKeyNotFoundError(NotFoundError):
    """No additional key with this id in this environment."""

    key_id: str

    @property
    def message(self) -> str:
        return f"Key {self.key_id!r} not found"


@attrs.define(eq=False)
class InvalidError(SessionsError):
    """A value the caller gave breaks a rule.

    Attributes:
        field: Path of the wrong value in the caller's words, e.g. ``triggerConfig.tags[3]``.
        reason: What is wrong with it.
    """

    field: str
    reason: str

    @property
    def message(self) -> str:
        return f"{self.field} {self.reason}"


@attrs.define(eq=False)
class InvalidCursorError(InvalidError):
    """A page cursor that this library did not make."""


@attrs.define(eq=False)
class RecordTooLargeError(SessionsError):
    """A record's metered size is over the limit of the log."""

    size: int
    limit: int

    @property
    def message(self) -> str:
        return (
            f"Record metered size {self.size} bytes exceeds the per-record limit of {self.limit} bytes. "
            "Reduce its size or split it into smaller records."
        )


class ConflictError(SessionsError):
    """The state of the thing forbids the call."""


@attrs.define(eq=False)
class TaskMismatchError(ConflictError):
    """The external id belongs to a session of another task."""

    external_id: str
    task: str
    stored_task: str

    @property
    def message(self) -> str:
        return f"Session {self.external_id!r} exists for another task; use a different externalId"


@attrs.define(eq=False)
class ExternalIdImmutableError(ConflictError):
    """An update tried to change, set or clear the external id."""

    @property
    def message(self) -> str:
        return (
            "externalId cannot be changed after creation; "
            "close this session and create a new one with the desired externalId"
        )


@attrs.define(eq=False)
class GuardMismatchError(ConflictError):
    """The channel's guard is not the one the writer believed in."""

    actual: Guard

    @property
    def message(self) -> str:
        return f"The channel's guard is {self.actual}"


@attrs.define(eq=False)
class TailMismatchError(ConflictError):
    """The channel's next seq is not the one that the writer demanded."""

    actual: int

    @property
    def message(self) -> str:
        return f"The next record of the channel gets seq {self.actual}"


@attrs.define(eq=False)
class StaleRunError(ConflictError):
    """The run was replaced, or a later attempt of it has begun; it may not write any more.

    Attributes:
        run: The run, or None where the call named only its epoch.
        epoch: The epoch that is over, where the call named it.
    """

    run: str | None = None
    epoch: int | None = attrs.field(default=None, kw_only=True)

    @property
    def message(self) -> str:
        if self.run is not None:
            return f"Run {self.run!r} is no longer the session's current run"
        what = "Its time to write" if self.epoch is None else f"Epoch {self.epoch}"
        return f"{what} is over: the run was replaced, or a later attempt of it has begun"


@attrs.define(eq=False)
class AttemptBegunError(ConflictError):
    """Somebody else has begun that attempt, or it is not the run's next one; leave the run to them."""

    run: str
    attempt: int

    @property
    def message(self) -> str:
        return f"Attempt {self.attempt} of run {self.run!r} cannot begin: it has begun already, or is not the next one"


@attrs.define(eq=False)
class ClaimExhaustedError(ConflictError):
    """Other callers kept changing the session's run; try again."""

    session: str
    attempts: int

    @property
    def message(self) -> str:
        return f"Session {self.session!r} kept changing its run; gave up after {self.attempts} attempts"


@attrs.define(eq=False)
class ClosedError(SessionsError):
    """The session takes no more records."""

    session: str

    @property
    def closed_reason(self) -> str | None:
        """Why it is closed, if a reason was given."""
        return None


@attrs.define(eq=False)
class SessionClosedError(ClosedError):
    """The session was closed."""

    reason: str | None = None

    @property
    def closed_reason(self) -> str | None:
        return self.reason

    @property
    def message(self) -> str:
        return f"Session {self.session!r} is closed"


@attrs.define(eq=False)
class SessionExpiredError(ClosedError):
    """The session's time is over."""

    @property
    def closed_reason(self) -> str:
        return "expired"

    @property
    def message(self) -> str:
        return f"Session {self.session!r} is expired"


@attrs.define(eq=False)
class UnavailableError(SessionsError):
    """A system this call needs gave no answer. The call may or may not have had its effect."""

    system: str

    @property
    def message(self) -> str:
        return f"The {self.system} is unavailable; try again"


@attrs.define(eq=False)
class StoreUnavailableError(UnavailableError):
    """The store of sessions, runs or waitpoints gave no answer."""

    system: str = "session store"


@attrs.define(eq=False)
class ChannelUnavailableError(UnavailableError):
    """The channel log gave no answer."""

    system: str = "channel log"


@attrs.define(eq=False)
class DispatcherUnavailableError(UnavailableError):
    """The run engine did not take the run; it stays pending and will be dispatched again.

    Attributes:
        was_asked: False if the engine was left alone because of a failure that has been told of already.
    """

    system: str = "run dispatcher"
    was_asked: bool = True


@attrs.define(eq=False)
class IndexUnavailableError(UnavailableError):
    """The index that lists are read from gave no answer; everything else goes on."""

    system: str = "session index"


@attrs.define(eq=False)
class WaitRegistryUnavailableError(UnavailableError):
    """The registry of waits gave no answer; wake-ups are left to the sweep."""

    system: str = "wait registry"


@attrs.define(eq=False)
class RateLimiterUnavailableError(UnavailableError):
    """The limiter of requests gave no answer; nobody is refused because of that."""

    system: str = "rate limiter"


@attrs.define(eq=False)
class MissingExtraError(SessionsError, ImportError):
    """What was chosen needs a package that is not installed.

    Attributes:
        part: What was chosen; begins the sentence.
        package: What it needs.
        extra: The extra of ours that brings it.
    """

    part: str
    package: str
    extra: str

    @property
    def message(self) -> str:
        return f"{self.part} needs {self.package}: pip install 'sessions[{self.extra}]'"


@attrs.define(eq=False)
class IncompatibleStoreError(SessionsError):
    """The stored data cannot be used: it was written by a newer version or under another key, or it is in use."""

    reason: str

    @property
    def message(self) -> str:
        return self.reason


@attrs.define(eq=False)
class StoreInUseError(IncompatibleStoreError):
    """Another process owns the stored data."""


class StrayCancellationError(SessionsError):
    """What was awaited let out a cancellation that belongs to none of the scopes around it."""

    @property
    def message(self) -> str:
        return "Cancelled from within"


class IndexRefusedError(SessionsError):
    """The index does not take these rows as they are; none of them was written, and a retry ends the same way."""

    @property
    def message(self) -> str:
        return "The session index does not take these rows"
