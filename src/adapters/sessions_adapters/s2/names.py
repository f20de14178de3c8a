"""Names of streams.

    {prefix}env/{environment}/sessions/{addressing key}/{in|out}[/{name}]

Every part between slashes is written so that it cannot be mistaken for another: letters, digits and ``-_.~:@`` stay as they
are, all else is percent-encoded, slashes included. A part that would get too long becomes ``=`` and its SHA-256; no
encoded part has an ``=`` in it. So different channels have different names, and no name is longer than S2 takes (512 bytes).
"""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import quote

from sessions_core.domain.channel import Channel

KEY_BYTES: Final = 256
"""Any external id of plain characters fits."""
OTHER_BYTES: Final = 72
PLAIN: Final = "-_.~:@"


def stream_name(prefix: str, channel: Channel) -> str:
    """Return the name of *channel*'s stream."""
    environment = _part(channel.environment_id, OTHER_BYTES)
    key = _part(channel.key, KEY_BYTES)
    name = "" if channel.name is None else f"/{_part(channel.name, OTHER_BYTES)}"
    return f"{prefix}env/{environment}/sessions/{key}/{channel.io.value}{name}"


def _part(text: str, limit: int) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    encoded = quote(raw, safe=PLAIN)
    return encoded if len(encoded) <= limit else f"={hashlib.sha256(raw).hexdigest()}"
