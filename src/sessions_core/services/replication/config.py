"""How replication behaves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs

from sessions_core.errors import InvalidError


def _positive(_: object, attribute: attrs.Attribute[Any], value: timedelta) -> None:
    if value <= timedelta():
        raise InvalidError(attribute.name, "must be more than 0")


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: timedelta) -> None:
    if value < timedelta():
        raise InvalidError(attribute.name, "must not be negative")


def _at_least_one(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if value < 1:
        raise InvalidError(attribute.name, "must be at least 1")


@attrs.frozen(kw_only=True)
class ReplicatorConfig:
    """When rows are written, how often that is tried, and how much is held.

    Attributes:
        name: Of what there is one leader at a time; should say which place is streamed from.
        flush_batch_size: So many rows are written without waiting for more.
        flush_interval: No row waits longer than this for others, if the index keeps up.
        flush_concurrency: So many writes may be under way at once.
        held_rows: With so many rows in memory nothing more is read from the feed. All that is there goes into the next
            write, so this is also the most that one write has, but for one batch of the feed.
        held_bytes: The same for the bytes that these rows have in the feed; in memory they take several times that.
        insert_attempts: After so many failures in a row a write counts as failed. It goes on all the same.
        insert_base_delay: Pause after the first failure; each further one doubles it.
        insert_max_delay: The longest such pause.
        insert_jitter: Up to this much is added to each pause, by chance.
        stall: If nothing could be written for this long while no more rows can be held, the stream is closed until
            there is room: a store that is to stop waits for whoever streams.
        resubscribe_base_delay: Pause before a stream that broke is opened again; each further failure doubles it.
        resubscribe_max_delay: The longest such pause.
        leader_lock_timeout: Who does not lead after this long and *leader_lock_additional_time* says that somebody else
            leads, and goes on waiting.
        leader_lock_additional_time: See *leader_lock_timeout*.
        stop_timeout: How long a stop may take to write what has been read.
    """

    name: str = "replication"
    flush_batch_size: int = attrs.field(default=100, validator=_at_least_one)
    flush_interval: timedelta = attrs.field(default=timedelta(seconds=1), validator=_positive)
    flush_concurrency: int = attrs.field(default=1, validator=_at_least_one)
    held_rows: int = attrs.field(default=10_000, validator=_at_least_one)
    held_bytes: int = attrs.field(default=33_554_432, validator=_at_least_one)
    insert_attempts: int = attrs.field(default=3, validator=_at_least_one)
    insert_base_delay: timedelta = attrs.field(default=timedelta(seconds=0.1), validator=_positive)
    insert_max_delay: timedelta = attrs.field(default=timedelta(seconds=2), validator=_positive)
    insert_jitter: timedelta = attrs.field(default=timedelta(seconds=0.1), validator=_not_negative)
    stall: timedelta = attrs.field(default=timedelta(seconds=30), validator=_positive)
    resubscribe_base_delay: timedelta = attrs.field(default=timedelta(seconds=1), validator=_positive)
    resubscribe_max_delay: timedelta = attrs.field(default=timedelta(seconds=30), validator=_positive)
    leader_lock_timeout: timedelta = attrs.field(default=timedelta(seconds=30), validator=_positive)
    leader_lock_additional_time: timedelta = attrs.field(default=timedelta(seconds=10), validator=_not_negative)
    stop_timeout: timedelta = attrs.field(default=timedelta(seconds=10), validator=_positive)
