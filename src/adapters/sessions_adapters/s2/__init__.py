"""Channels in S2: one stream for each, in the hosted service or in s2-lite.

Guards are fencing tokens, part ids are looked for in the stream itself, and nothing else is needed beside it. Any number of
processes may use one basin. Runs on asyncio only. docs/reference/s2.md says what is stored where.
"""

from __future__ import annotations

from sessions_core.errors import MissingExtraError

try:
    import s2_sdk as _s2_sdk
except ImportError as exc:
    raise MissingExtraError("A log in S2", "s2-sdk", "s2") from exc

from sessions_adapters.s2.basin import S2Basin, open_basin
from sessions_adapters.s2.channel_log import S2ChannelLog
from sessions_adapters.s2.config import S2Config
from sessions_adapters.s2.direct_writes import S2DirectWrites
from sessions_adapters.s2.inspection import S2Facts, inspect

__all__ = ["S2Basin", "S2ChannelLog", "S2Config", "S2DirectWrites", "S2Facts", "inspect", "open_basin"]

del _s2_sdk
