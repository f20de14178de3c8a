"""Options of the SQLite adapter."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class SqliteConfig:
    """Where the data lies, and how much is kept in mind.

    Attributes:
        path: The database file. Its folder is made if it is missing; ``-wal``, ``-shm`` and ``.lock`` lie beside it.
        owner: Whether this process owns the data. There is one owner at a time. Anybody else may open the file with
            ``owner=False`` while the owner runs, and then use nothing but the environment store.
        busy_timeout: How long a write waits for another process that is writing.
        part_window_records: A part id is remembered while its record is among this many latest ones of its channel …
        part_window: … or younger than this.
        group_size: How many writes share a transaction at most.
        readers: How many threads read, each on its own connection.
        known_channels: About how many channels' heads the writer keeps in memory.
        buffered_bytes: How much a slow follower may have waiting before it reads from the disk instead.
        checkpoint_pages: After about this many written pages the log of changes goes into the database as soon as
            nobody waits; after four times as many, even if somebody does.
        max_pages: Upper bound of the database's size; None leaves it to the disk.
    """

    path: Path = attrs.field(converter=Path)
    owner: bool = True
    busy_timeout: timedelta = timedelta(seconds=5)
    part_window_records: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    part_window: timedelta = timedelta(minutes=15)
    group_size: int = attrs.field(default=512, validator=attrs.validators.ge(1))
    readers: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    known_channels: int = attrs.field(default=20_000, validator=attrs.validators.ge(2))
    buffered_bytes: int = attrs.field(default=1_048_576, validator=attrs.validators.ge(1))
    checkpoint_pages: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    max_pages: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
