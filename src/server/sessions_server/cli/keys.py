"""Making environments and their keys."""

from __future__ import annotations

import secrets
import string
from typing import Final

from sessions_adapters.profiles import new_id
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId

KEY_LENGTH: Final = 24
_ALPHABET: Final = string.ascii_letters + string.digits


def new_root_key(kind: EnvironmentType) -> str:
    """Return a fresh root key: ``tr_<dev|stg|prod|preview>_`` and 24 letters or digits."""
    return f"tr_{kind.slug}_" + "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH))


def new_environment(kind: EnvironmentType, organization: str = "default", project: str = "default") -> Environment:
    """Return a new environment that belongs to *organization* and *project*."""
    return Environment(
        id=EnvironmentId(f"env_{new_id()}"),
        organization_id=OrganizationId(organization),
        project_id=ProjectId(project),
        type=kind,
    )
