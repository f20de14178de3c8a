"""Identifiers, and the rule that tells a friendly id from an external id.

A session has one id of its own, the *friendly id* ``session_…``, and may carry the caller's *external id*.
Which of the two a text is, is decided by the prefix alone, so an external id may not start with it.
"""

from __future__ import annotations

from typing import Final, NewType

from sessions_core.domain.json_values import check_text
from sessions_core.errors import InvalidError

OrganizationId = NewType("OrganizationId", str)
ProjectId = NewType("ProjectId", str)
EnvironmentId = NewType("EnvironmentId", str)
SessionId = NewType("SessionId", str)
"""Friendly id of a session, ``session_…``."""
ExternalId = NewType("ExternalId", str)
"""The caller's own name for a session, unique in its environment."""
AddressingKey = NewType("AddressingKey", str)
"""What a session's channels, waits and token scopes are keyed on: the external id, else the friendly id."""
RunId = NewType("RunId", str)
WaitpointId = NewType("WaitpointId", str)
AccessKeyId = NewType("AccessKeyId", str)
"""Names an additional key without opening anything: ``key_`` and the beginning of its hash."""
PartId = NewType("PartId", str)
"""Chosen by the writer of a record; the same part id on one channel means the same record."""

SESSION_PREFIX: Final = "session_"
RUN_PREFIX: Final = "run_"
WAITPOINT_PREFIX: Final = "waitpoint_"
MAX_EXTERNAL_ID: Final = 256

RESERVED_PARTS: Final = "~sessions:"
"""Part ids that begin so are the library's own; records from outside may not have them."""

ID_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def is_friendly_id(text: str) -> bool:
    """Tell whether *text* names a session by its friendly id."""
    return text.startswith(SESSION_PREFIX)


def parse_external_id(text: str, *, field: str = "externalId") -> ExternalId:
    """Trim and check an external id.

    Raises:
        InvalidError: Empty, longer than 256 characters, with the reserved prefix, or not storable (:func:`check_text`).
    """
    trimmed = text.strip()
    if not 1 <= len(trimmed) <= MAX_EXTERNAL_ID:
        raise InvalidError(field, f"must have 1 to {MAX_EXTERNAL_ID} characters")
    if is_friendly_id(trimmed):
        raise InvalidError(field, f"cannot start with '{SESSION_PREFIX}' (reserved prefix for internal friendlyIds)")
    check_text(trimmed, field=field)
    return ExternalId(trimmed)


def own_part(name: str) -> PartId:
    """Return the part id of a record that the library itself appends, and that must be there once."""
    return PartId(RESERVED_PARTS + name)


def addressing_key(session_id: SessionId, external_id: ExternalId | None) -> AddressingKey:
    """Return the key under which a session's channels live."""
    return AddressingKey(external_id if external_id is not None else session_id)


def time_ordered_id(milliseconds: int, random_part: str) -> str:
    """Return a lower-case id whose alphabetical order follows *milliseconds*: ``c`` + 8 base-36 digits + random."""
    digits = ""
    for _ in range(8):
        milliseconds, digit = divmod(milliseconds, 36)
        digits = ID_ALPHABET[digit] + digits
    return f"c{digits}{random_part}"
