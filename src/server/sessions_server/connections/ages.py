"""How long a connection lasts."""

from __future__ import annotations

import random
from typing import Final

_SHARES: Final = (0.9, 1.1)


def jittered(age: float) -> float:
    """Return about *age*: connections that were opened at the same moment shall not come back at the same moment."""
    return age * random.uniform(*_SHARES)  # noqa: S311 - no secret
