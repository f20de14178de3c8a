"""Environments, the tenancy boundary, and the keys that open them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

import attrs

from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId
from sessions_core.domain.json_values import check_text
from sessions_core.errors import InvalidError

MAX_ID: Final = 256


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
