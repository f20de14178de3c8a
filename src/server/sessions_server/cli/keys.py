"""Making environments and their keys."""

from __future__ import annotations

import re
import secrets
import string
from typing import Final

from sessions_adapters.profiles import new_id
from sessions_core.domain.environment import Environment, EnvironmentType
from sessions_core.domain.ids import EnvironmentId, OrganizationId, ProjectId
from sessions_core.errors import InvalidError

KEY_LENGTH: Final = 24
_ALPHABET: Final = string.ascii_letters + string.digits
_ROOT_KEY: Final = re.compile(rf"tr_(?:{'|'.join(kind.slug for kind in EnvironmentType)})_[A-Za-z0-9]{{{KEY_LENGTH},}}")


def new_root_key(kind: EnvironmentType) -> str:
    """Return a fresh root key: ``tr_<dev|stg|prod|preview>_`` and 24 letters or digits."""
    return f"tr_{kind.slug}_" + _random()


def new_additional_key(kind: EnvironmentType) -> str:
    """Return a fresh additional key: ``tr_<dev|stg|prod|preview>_sk_`` and 24 letters or digits."""
    return f"tr_{kind.slug}_sk_" + _random()


def _random() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH))


def parse_root_key(text: str, option: str) -> str:
    """Return *text* if it may be a root key. An additional key, ``tr_<…>_sk_…``, is none.

    Raises:
        InvalidError: Names *option*, and does not repeat the key.
    """
    if _ROOT_KEY.fullmatch(text) is None:
        kinds = "|".join(kind.slug for kind in EnvironmentType)
        raise InvalidError(option, f"must be tr_<{kinds}>_ and at least {KEY_LENGTH} letters or digits")
    return text


def new_environment(kind: EnvironmentType, organization: str = "default", project: str = "default") -> Environment:
    """Return a new environment that belongs to *organization* and *project*."""
    return Environment(
        id=EnvironmentId(f"env_{new_id()}"),
        organization_id=OrganizationId(organization),
        project_id=ProjectId(project),
        type=kind,
    )
