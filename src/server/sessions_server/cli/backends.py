"""Which systems a server's settings choose."""

from __future__ import annotations

import attrs

from sessions_adapters.profiles import Backends
from sessions_server.config import Config


def backends_of(config: Config) -> Backends:
    """Return what *config* says about them, in fields of the same names.

    Raises:
        InvalidError: No such profile or index, or a database for a profile that uses none.
    """
    return Backends(**{field.name: getattr(config, field.name) for field in attrs.fields(Backends)})
