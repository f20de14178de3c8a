"""How much is measured."""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen(kw_only=True)
class Scale:
    """Bounds of everything that is repeated.

    Attributes:
        rounds: How often each measurement is repeated. Many short ones: what is compared then happens close together.
        alone_seconds: How long one writer writes in a round.
        crowd_seconds: How long many writers write in a round.
        warm_up_seconds: How long they do before that counts.
        sizes: Records of the channels of different age, youngest first.
        samples: How often each request to each of these channels is sent in a round.
        fan_out_rounds: Rounds of the fan-out, which last longer.
        fan_out_seconds: How long records are written to readers in such a round.
        fan_out_warm_up_seconds: How long before that counts.
        flood_rounds: Rounds beside a flood, each with a fresh server.
        flood_seconds: How long good traffic lasts in such a round, calm and flooded.
        first_output_rounds: Rounds of first outputs. Between them the runs have to leave, which takes over a second.
        first_output_sessions: How many sessions are woken in such a round.
        memory_rounds: How often the server is started again to be filled with idle readers.
        wake_rounds: Rounds of wake-ups in another process.
        wake_seconds: How long records are written in such a round.
        page_rounds: Rounds of pages of the list of sessions.
        session_counts: How many sessions the lists have, shortest first.
        stream_rounds: Rounds of direct writes.
        stream_records: How many records one writer writes in such a round.
        stream_acks: How many are written one by one.
        readers: Idle readers.
    """

    rounds: int
    alone_seconds: float
    crowd_seconds: float
    warm_up_seconds: float
    sizes: tuple[int, ...]
    samples: int
    fan_out_rounds: int
    fan_out_seconds: float
    fan_out_warm_up_seconds: float
    flood_rounds: int
    flood_seconds: float
    first_output_rounds: int
    first_output_sessions: int
    memory_rounds: int
    wake_rounds: int
    wake_seconds: float
    page_rounds: int
    session_counts: tuple[int, int]
    stream_rounds: int
    stream_records: int
    stream_acks: int
    readers: int = 1000


FULL: Final = Scale(
    rounds=15,
    alone_seconds=0.4,
    crowd_seconds=0.6,
    warm_up_seconds=0.1,
    sizes=(100, 10_000, 1_000_000),
    samples=40,
    fan_out_rounds=7,
    fan_out_seconds=4.0,
    fan_out_warm_up_seconds=0.5,
    flood_rounds=5,
    flood_seconds=5.0,
    first_output_rounds=7,
    first_output_sessions=20,
    memory_rounds=3,
    wake_rounds=7,
    wake_seconds=4.0,
    page_rounds=15,
    session_counts=(10_000, 1_000_000),
    stream_rounds=7,
    stream_records=20_000,
    stream_acks=300,
)
SHORT: Final = Scale(
    rounds=3,
    alone_seconds=0.2,
    crowd_seconds=0.4,
    warm_up_seconds=0.1,
    sizes=(100, 10_000, 50_000),
    samples=20,
    fan_out_rounds=2,
    fan_out_seconds=1.0,
    fan_out_warm_up_seconds=0.2,
    flood_rounds=2,
    flood_seconds=1.5,
    first_output_rounds=2,
    first_output_sessions=8,
    memory_rounds=1,
    wake_rounds=3,
    wake_seconds=1.0,
    page_rounds=5,
    session_counts=(10_000, 50_000),
    stream_rounds=3,
    stream_records=10_000,
    stream_acks=200,
)
