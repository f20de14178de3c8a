"""Environments, the tenancy boundary, and the keys that open them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import attrs

from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId


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


@attrs.frozen(kw_only=True)
class Environment:
    """One tenancy boundary. Nothing crosses it (promise 6)."""

    id: EnvironmentId
    organization_id: OrganizationId
    project_id: ProjectId
    type: EnvironmentType = attrs.field(converter=EnvironmentType)


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


@attrs.frozen(kw_only=True)
class KeyGrant:
    """What a key found by its hash allows.

    Attributes:
        scopes: None for a root key, which may do everything; else the scopes of an additional key.
        expires_at: When the key stops working, if ever.
    """

    environment: Environment
    scopes: tuple[str, ...] | None = None
    expires_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Tell whether the key may still be used at *now*."""
        return self.expires_at is None or now < self.expires_at
