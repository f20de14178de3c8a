"""Options of the change feed."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

import attrs

from sessions_core.errors import InvalidError

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def _name(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if not _NAME.fullmatch(value):
        raise InvalidError(attribute.name, "must be 1 to 63 characters a-z, 0-9 or _, and not begin with a digit")


def _status_interval(_: object, __: object, value: timedelta) -> None:
    if not timedelta() < value <= timedelta(seconds=10):
        raise InvalidError("status_interval", "must be more than 0 and at most 10 seconds")


@attrs.frozen(kw_only=True)
class ReplicationConfig:
    """What the change feed uses on the server, and how much it holds at a time.

    Attributes:
        slot: The replication slot: the server keeps its log from what was last acknowledged there. Its name is known in all
            databases of the server.
        publication: Says which table and which changes.
        status_interval: So often the server is told what was acknowledged, and that we are there, also while the consumer
            takes its time. The server gives up after its ``wal_sender_timeout``, 60 seconds unless it was changed.
        batch_size: Of a transaction with more changes than this, so many come at a time.
        batch_bytes: Fewer of them come at a time once they have so many bytes as they are streamed.
        held_bytes: A transaction is held until its end is there; what goes beyond this is held in a temporary file.
    """

    slot: str = attrs.field(default="sessions_to_clickhouse_v1", validator=_name)
    publication: str = attrs.field(default="sessions_to_clickhouse_v1_publication", validator=_name)
    status_interval: timedelta = attrs.field(default=timedelta(seconds=1), validator=_status_interval)
    batch_size: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    batch_bytes: int = attrs.field(default=4_194_304, validator=attrs.validators.ge(1))
    held_bytes: int = attrs.field(default=16_777_216, validator=attrs.validators.ge(0))
