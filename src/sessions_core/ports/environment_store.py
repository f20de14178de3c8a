"""Ports: environments with their keys, the cipher that protects them, and the ledger of used one-time tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from sessions_core.domain.environment import AdditionalKey, Environment, KeyGrant, RootKey
from sessions_core.domain.ids import AccessKeyId, EnvironmentId


class AdditionalKeyStore(Protocol):
    """Keeps an environment's additional keys, of each only its hash."""

    __slots__ = ()

    @abstractmethod
    async def add_key(
        self,
        environment_id: EnvironmentId,
        key: str,
        scopes: Sequence[str],
        *,
        name: str = "",
        expires_at: datetime | None = None,
    ) -> AdditionalKey:
        """Store an additional key with limited scopes.

        Raises:
            EnvironmentNotFoundError: No such environment.
            InvalidError: The key exists already, or name or scopes are too long or cannot be stored.
        """

    @abstractmethod
    async def list_keys(self, environment_id: EnvironmentId) -> list[AdditionalKey]:
        """Return the environment's additional keys, oldest first, also those that no longer work.

        Raises:
            EnvironmentNotFoundError: No such environment.
        """

    @abstractmethod
    async def revoke_key(self, environment_id: EnvironmentId, key_id: AccessKeyId) -> AdditionalKey:
        """Let an additional key work no longer. The time of the first call stays.

        Raises:
            AccessKeyNotFoundError: No such additional key in this environment.
        """

    @abstractmethod
    async def record_use(self, environment_id: EnvironmentId, key_id: AccessKeyId) -> None:
        """Remember that an additional key was used now, unless a use less than ``USE_PRECISION`` ago is remembered.

        Nothing happens where there is no such key.

        Raises:
            StoreUnavailableError: No answer.
        """


class EnvironmentStore(AdditionalKeyStore, Protocol):
    """Keeps organizations, projects, environments and keys. Root keys are stored encrypted; all are found by their hash."""

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
        """Return what *key* (root, rotated within its grace, or additional and not revoked) allows, or None."""

    @abstractmethod
    async def find_root_keys(self, environment_id: EnvironmentId) -> Sequence[RootKey]:
        """Return the environment's root keys that are still valid, the current one first; empty if there is none such."""

    @abstractmethod
    async def rotate_root_key(self, environment_id: EnvironmentId, new_key: str, *, grace: timedelta) -> None:
        """Make *new_key* the current root key; those before it work for *grace* more, or for what is left of an earlier grace.

        Raises:
            EnvironmentNotFoundError: No such environment.
        """

    @abstractmethod
    async def reseal_root_keys(self) -> int:
        """Encrypt all root keys anew, all or none, and forget those whose grace is over; return how many there are.

        Afterwards the cipher's current encryption key opens them all.

        Raises:
            IncompatibleStoreError: One cannot be decrypted; nothing has changed.
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
