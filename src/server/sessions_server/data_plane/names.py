"""Names of basins and streams: an environment is a basin, a channel a stream in it.

    sessions/{addressing key}/{in|out}

The key is percent-encoded except for letters, digits and ``-_.~:@``, so it has no slash and goes into a header as it is. A name
that is used in a path is encoded once more, as a whole.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.ids import AddressingKey

_PREFIX: Final = "sessions"
_PLAIN: Final = "-_.~:@"
_PARTS: Final = 3


@lru_cache(maxsize=1024)
def basin_of(environment_id: str) -> str:
    """Return the name of an environment's basin; every S2 client takes it for one, whatever the id looks like."""
    return f"{_PREFIX}-{hashlib.sha256(environment_id.encode()).hexdigest()[:24]}"


def stream_of(channel: Channel) -> str:
    """Return the name of *channel*'s stream."""
    return f"{_PREFIX}/{quote(channel.key, safe=_PLAIN, errors='surrogatepass')}/{channel.io.value}"


def parse_stream(name: str) -> tuple[AddressingKey, Io] | None:
    """Return the session's id or key and the direction that a stream's name tells; None if it is no name of ours."""
    parts = name.split("/")
    if len(parts) != _PARTS or parts[0] != _PREFIX or not parts[1] or parts[2] not in list(Io):
        return None
    try:
        key = unquote_to_bytes(parts[1]).decode()
    except UnicodeDecodeError:
        return None
    return (AddressingKey(key), Io(parts[2])) if "\x00" not in key else None
