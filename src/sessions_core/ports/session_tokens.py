"""Port: the tokens with which a client reads and writes one session, and a foreign engine carries out one run."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Protocol

from sessions_core.domain.environment import RootKey
from sessions_core.domain.run import RunRecord
from sessions_core.domain.session import Session


class SessionTokens(Protocol):
    """Signs tokens. Pure: no I/O, no clock of its own."""

    __slots__ = ()

    @abstractmethod
    def issue(self, session: Session, key: RootKey, now: datetime) -> str:
        """Return a token, valid from *now* on, that may read and write *session* and nothing else, signed with *key*."""

    @abstractmethod
    def issue_for_run(self, run: RunRecord, key: RootKey, now: datetime) -> str:
        """Return a token, valid from *now* on, that may carry out *run* and read its session, and nothing else."""
