"""Environments, the tenancy boundary, and the keys that open them.

Root keys may do everything in their environment and sign its public tokens, so they are kept encrypted. Additional keys
have scopes and are only ever compared, so nothing but their hash is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import attrs

from sessions_core.domain.ids import AccessKeyId, EnvironmentId, OrganizationId, ProjectId
from sessions_core.domain.json_values import check_text
from sessions_core.errors import InvalidError

MAX_ID: Final = 256
MAX_KEY_NAME: Final = 256
MAX_KEY_SCOPES: Final = 100
MAX_SCOPE: Final = 512
USE_PRECISION: Final = timedelta(minutes=5)
"""Uses of a key are not written more often than this."""
_KEY_ID_PREFIX: Final = "key_"
_KEY_ID: Final = re.compile(rf"{_KEY_ID_PREFIX}([0-9a-f]{{24}})")


class EnvironmentType(StrEnum):
    """What an environment is for; the value is the word stored and shown."""

    DEVELOPMENT = "DEVELOPMENT"
    STAGING = "STAGING"
    PRODUCTION = "PRODUCTION"
    PREVIEW = "PREVIEW"

    @property
    def slug(self) -> str:
        """Short form, used in key prefixes and stream names."""
        return _SLUGS[self]


_SLUGS = {
    EnvironmentType.DEVELOPMENT: "dev",
    EnvironmentType.STAGING: "stg",
    EnvironmentType.PRODUCTION: "prod",
    EnvironmentType.PREVIEW: "preview",
}


def _check_id(_: object, __: object, value: EnvironmentId) -> None:
    check_text(value, field="environment")
    if not 1 <= len(value) <= MAX_ID:
        raise InvalidError("environment", f"must have 1 to {MAX_ID} characters")


@attrs.frozen(kw_only=True)
class Environment:
    """One tenancy boundary. Nothing crosses it (promise 6).

    A service that embeds sessions names its environments as it likes: only ``id`` separates them.

    Raises:
        InvalidError: The id is empty, longer than 256 characters, or not storable.
    """

    id: EnvironmentId = attrs.field(converter=EnvironmentId, validator=_check_id)
    organization_id: OrganizationId = attrs.field(default=OrganizationId("default"), converter=OrganizationId)
    project_id: ProjectId = attrs.field(default=ProjectId("default"), converter=ProjectId)
    type: EnvironmentType = attrs.field(default=EnvironmentType.PRODUCTION, converter=EnvironmentType)


@attrs.frozen(kw_only=True)
class RootKey:
    """A key with full rights in its environment, which also signs that environment's public tokens.

    Attributes:
        value: The key itself. Never log it.
        expires_at: None for the current key; the end of the grace period for a rotated one.
    """

    value: str = attrs.field(repr=False)
    expires_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Tell whether the key may still be used at *now*."""
        return self.expires_at is None or now < self.expires_at


def key_hash(value: str) -> str:
    """Return what a key is found by: its SHA-256.

    Looking this up compares keys without telling by its time how much of a guess was right: that the beginning of a hash
    is right says nothing about the key.
    """
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def key_id_of(hashed: str) -> AccessKeyId:
    """Return the id of the additional key with this hash."""
    return AccessKeyId(_KEY_ID_PREFIX + hashed[:24])


def hash_range(key_id: AccessKeyId) -> tuple[str, str] | None:
    """Return what the hash of the key called *key_id* lies between, or None if there can be no such key."""
    found = _KEY_ID.fullmatch(key_id)
    return None if found is None else (found[1], found[1] + "g")


def check_key(name: str, scopes: Collection[str]) -> None:
    """Check what an additional key is to be called and allowed.

    Raises:
        InvalidError: Too long, too many, or not storable. Whether a scope means anything is not asked.
    """
    check_text(name, field="name")
    if len(name) > MAX_KEY_NAME:
        raise InvalidError("name", f"must have at most {MAX_KEY_NAME} characters")
    if len(scopes) > MAX_KEY_SCOPES:
        raise InvalidError("scopes", f"must be at most {MAX_KEY_SCOPES}")
    for number, scope in enumerate(scopes):
        check_text(scope, field=f"scopes[{number}]")
        if len(scope) > MAX_SCOPE:
            raise InvalidError(f"scopes[{number}]", f"must have at most {MAX_SCOPE} characters")


@attrs.frozen(kw_only=True)
class AdditionalKey:
    """A key with limited rights as its environment lists it. The key itself is known to its holder alone.

    Attributes:
        name: What it is for, in its maker's words; may be empty.
        expires_at: When it stops working, if ever.
        revoked_at: When it was made to stop working; it stays listed.
        last_used_at: When it was last shown to a server, or a few minutes earlier (:data:`USE_PRECISION`).
    """

    id: AccessKeyId
    environment_id: EnvironmentId
    name: str = ""
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Tell whether the key may still be used at *now*."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@attrs.frozen(kw_only=True)
class KeyGrant:
    """What a key found by its hash allows.

    Attributes:
        scopes: None for a root key, which may do everything; else the scopes of an additional key.
        expires_at: When the key stops working, if ever.
        key_id: Of an additional key.
    """

    environment: Environment
    scopes: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    key_id: AccessKeyId | None = None

    def is_valid(self, now: datetime) -> bool:
        """Tell whether the key may still be used at *now*."""
        return self.expires_at is None or now < self.expires_at
