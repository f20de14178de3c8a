"""What has to be the answer: to whom, about what, under which epoch.

The order is that of docs/reference/http.md. Whoever is nobody gets 401. Who has the wrong kind of credential, or none of the rights
that a line needs, gets 403, and does not learn what exists. All others are told what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

import attrs

from harness.authorization.asking import Request
from harness.authorization.kinds import Form, Kind, Use
from harness.authorization.world import RIGHT, STALE, World


class Plane(Enum):
    """Whose words errors are in."""

    SESSIONS = "sessions"
    S2 = "s2"


class Change(Enum):
    """Whether anything changes."""

    NONE = "nothing changes"
    SOME = "something changes"
    PERHAPS = "something may change"


class Presence(Enum):
    """What there is by a name, in one environment."""

    THERE = "there"
    ABSENT = "absent"
    """An external id that nobody has: some routes need no session yet."""
    GHOST = "ghost"
    """An id of the form that only things have which are there."""


class Epoch(Enum):
    """What is said about the epoch."""

    RIGHT = str(RIGHT)
    STALE = str(STALE)
    UNSAID = "unsaid"
    """The route takes one, and none is given."""
    NONE = "none"
    """The route takes none."""


WITH_EPOCHS: Final = (Epoch.RIGHT, Epoch.STALE, Epoch.UNSAID)
NO_EPOCH: Final = (Epoch.NONE,)


@attrs.frozen
class Expected:
    """An answer."""

    status: int
    code: str | None = None
    change: Change = Change.NONE


UNKNOWN: Final = Expected(401, "unauthenticated")
FORBIDDEN: Final = Expected(403, "unauthorized")
INVALID: Final = Expected(400, "invalid_request")
STALE_RUN: Final = Expected(409, "stale_run")
NO_SESSION: Final = Expected(404, "session_not_found")
NO_RUN: Final = Expected(404, "run_not_found")
NO_WAITPOINT: Final = Expected(404, "waitpoint_not_found")


SENTENCES: Final = {
    401: {
        "Invalid or Missing API key",
        "Invalid API key",
        "Invalid Public Access Token",
        "Public Access Token is invalid",
        "Public Access Token has been used",
        "The access token is invalid or has expired",
    },
    403: {
        "Unauthorized",
        "Writing to the out channel requires secret key authentication",
        "A token cannot be given scopes that the key does not have",
        "A one-time token is good for one change, and this allows many",
        "Only this server's own page may do this",
        "The access token is for another stream",
        *(f"The access token does not allow to {word}" for word in ("trim", "fence", "read", "check-tail")),
        *(f"The credential does not allow to {word}" for word in ("append", "trim", "fence", "read", "check-tail")),
        "Its time to write is over: the run was replaced, or a later attempt of it has begun",
    },
}
"""All that whoever is refused is told: nothing about what there is."""


@attrs.frozen(kw_only=True)
class Row:
    """What is asked about.

    Attributes:
        subject: What rights to it are called.
        home: Whether it is there for the environment of most credentials; *abroad*: for the other one.
        session: Its session's id, as a template of the world's names; so are ``run`` and ``waitpoint``.
    """

    name: str
    subject: str
    session: str
    run: str = ""
    waitpoint: str = ""
    home: Presence
    abroad: Presence

    def presence(self, kind: Kind) -> Presence:
        """Return what there is for *kind*."""
        return self.abroad if kind.is_foreign else self.home


@attrs.frozen(kw_only=True)
class Case:
    """A row and an epoch, to be asked about in a world."""

    world: World
    row: Row
    epoch: Epoch

    def fill(self, template: str) -> str:
        """Return *template* with the world's names filled in."""
        return template.format_map(self.world.names)

    @property
    def session(self) -> str:
        """The session's id."""
        return self.fill(self.row.session)

    @property
    def run(self) -> str:
        """The run's id."""
        return self.fill(self.row.run)

    @property
    def waitpoint(self) -> str:
        """The waitpoint's id."""
        return self.fill(self.row.waitpoint)


@attrs.frozen(kw_only=True)
class Line:
    """A way to ask one route.

    Attributes:
        route: Method and path as in the route table, with ``in`` or ``out`` for ``{io}``.
        ask: Makes the request.
        needs: Alternatives; of one of them the credential must hold all. None: everybody may.
        refuses: Forms of credentials that it does not take.
        good: The answer where everything is right.
        stale: The answer where only the epoch is over.
        needs_epoch: Whether it cannot be left out.
        absent: The answer about what is not there.
        ghost: The same, where the name has the form of an id that only things have which are there.
        needs_run: Alternatives to *needs* for whoever carries the run out, who has to name the epoch.
        uses_up: Whether it counts as the one use of a one-time token.
        takes_one_time: Whether such a token is good for it.
        special: An answer that only this line has, to those who may ask; None where it has none.
        says_ok: Whether errors say ``"ok": false``.
    """

    name: str
    route: tuple[str, str]
    ask: Callable[[Case], Request]
    rows: tuple[Row, ...]
    needs: tuple[tuple[str, ...], ...] | None
    good: Expected
    epochs: tuple[Epoch, ...] = NO_EPOCH
    stale: Expected = STALE_RUN
    needs_epoch: bool = False
    absent: Expected = NO_SESSION
    ghost: Expected = NO_SESSION
    refuses: Mapping[Form, Expected] = attrs.field(factory=dict)
    needs_run: tuple[tuple[str, ...], ...] = ()
    uses_up: bool = False
    takes_one_time: bool = True
    special: Callable[[Kind, Row, Epoch], Expected | None] = lambda kind, row, epoch: None
    says_ok: bool = False
    plane: Plane = Plane.SESSIONS


def expect(line: Line, kind: Kind, row: Row, epoch: Epoch) -> Expected:
    """Return the answer that *kind* has to get."""
    return _refusal(line, kind, row, epoch) or line.special(kind, row, epoch) or _told(line, row.presence(kind), epoch)


def _refusal(line: Line, kind: Kind, row: Row, epoch: Epoch) -> Expected | None:
    """Return how *kind* is refused; None if it may ask."""
    if line.needs is None:
        return None
    if not kind.works or kind.form is Form.DIRECT:
        return UNKNOWN
    if kind.form in line.refuses:
        return line.refuses[kind.form]
    if not _holds(kind, row, line.needs):
        return _refusal_of_run(line, kind, row, epoch)
    if line.uses_up and kind.use is not Use.OFTEN:
        return _refusal_of_one_time(line, kind)
    return None


def _refusal_of_run(line: Line, kind: Kind, row: Row, epoch: Epoch) -> Expected | None:
    """Whoever carries the run out may ask as that run, and has to say under which epoch."""
    if row.presence(kind) is not Presence.THERE or not _holds(kind, row, line.needs_run):
        return FORBIDDEN
    return INVALID if epoch is Epoch.UNSAID else None


def _refusal_of_one_time(line: Line, kind: Kind) -> Expected | None:
    if not line.takes_one_time:
        return FORBIDDEN
    return UNKNOWN if kind.use is Use.NEVER_AGAIN else None


def _holds(kind: Kind, row: Row, needs: tuple[tuple[str, ...], ...]) -> bool:
    return any({word.format(row.subject) for word in alternative} <= kind.holds for alternative in needs)


def _told(line: Line, presence: Presence, epoch: Epoch) -> Expected:
    if line.needs_epoch and epoch is Epoch.UNSAID:
        return INVALID
    if presence is not Presence.THERE:
        return line.absent if presence is Presence.ABSENT else line.ghost
    return line.stale if epoch is Epoch.STALE else line.good
