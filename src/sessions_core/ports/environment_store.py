"""Ports: environments with their keys, the cipher that protects them, and the ledger of used one-time tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from sessions_core.domain.environment import Environment, KeyGrant, RootKey
from sessions_core.domain.ids import EnvironmentId


class EnvironmentStore(Protocol):
    """Keeps organizations, projects, environments and keys. Keys are stored encrypted and found by their hash."""

    __slots__ = ()

    @abstractmethod
    async def create(self, environment: Environment, root_key: str) -> None:
        """Store a new environment (with its organization and project, if new) and its root key.

        Raises:
            InvalidError: The id or the key exists already.
        """

    @abstractmethod
    async def list_all(self) -> list[Environment]:
        """Return all environments, oldest first."""

    @abstractmethod
    async def find_grant(self, key: str) -> KeyGrant | None:
        """Return what *key* (root, rotated within its grace, or additional) allows, or None. Looks up its SHA-256."""

    @abstractmethod
    async def find_root_keys(self, environment_id: EnvironmentId) -> Sequence[RootKey]:
        """Return the environment's root keys that are still valid, the current one first; empty if there is none such."""

    @abstractmethod
    async def rotate_root_key(self, environment_id: EnvironmentId, new_key: str, *, grace: timedelta) -> None:
        """Make *new_key* the current root key; the old one works for *grace* more.

        Raises:
            EnvironmentNotFoundError: No such environment.
        """

    @abstractmethod
    async def add_key(
        self, environment_id: EnvironmentId, key: str, scopes: Sequence[str], *, expires_at: datetime | None = None
    ) -> None:
        """Store an additional key with limited scopes. Only its hash is kept.

        Raises:
            EnvironmentNotFoundError: No such environment.
        """


class Cipher(Protocol):
    """Encrypts small secrets at rest. Root keys are recoverable only through it."""

    __slots__ = ()

    @abstractmethod
    def encrypt(self, plain: bytes) -> bytes:
        """Return an authenticated ciphertext."""

    @abstractmethod
    def decrypt(self, sealed: bytes) -> bytes:
        """Return the plain bytes.

        Raises:
            IncompatibleStoreError: Made with another encryption key, or damaged.
        """


class TokenLedger(Protocol):
    """Remembers which one-time tokens have been used."""

    __slots__ = ()

    @abstractmethod
    async def consume(self, environment_id: EnvironmentId, token_hash: str, expires_at: datetime) -> bool:
        """Return True for the first call with this token, False for every later one until *expires_at*."""
