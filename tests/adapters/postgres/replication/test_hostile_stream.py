"""A stream that is damaged or made up: transactions come out of it, or it is malformed, soon and without much memory."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pgoutput import encode
from sessions_adapters.postgres.replication.decoder import decode
from sessions_adapters.postgres.replication.framing import decode_frame
from sessions_adapters.postgres.replication.held import HeldMessages
from sessions_adapters.postgres.replication.messages import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    OldRow,
    Relation,
    ReplicaIdentity,
    Truncate,
    TruncateOption,
    Update,
)
from sessions_adapters.postgres.replication.reader import EPOCH, MalformedMessageError
from sessions_adapters.postgres.replication.transactions import Transactions
from sessions_core.ports.change_feed import Change

COLUMNS = {
    "id": 25, "environment_id": 25, "organization_id": 25, "project_id": 25, "environment_type": 25, "external_id": 25,
    "type": 25, "task_identifier": 25, "trigger_config": 114, "tags": 1009, "metadata": 114, "current_run_id": 25,
    "current_run_version": 20, "epoch": 20, "closed_at": 1184, "closed_reason": 25, "expires_at": 1184,
    "sealed_at": 1184, "is_test": 16, "created_at": 1184, "updated_at": 1184,
}  # fmt: skip
GOOD: dict[str, Any] = {
    "environment_type": b"DEVELOPMENT", "trigger_config": b'{"basePayload":{}}', "tags": b"{a}", "metadata": None,
    "current_run_version": b"1", "epoch": b"0", "is_test": b"f", "created_at": b"2026-01-01 00:00:00+00",
    "updated_at": b"2026-01-01 00:00:00+00", "closed_at": None, "expires_at": None, "sealed_at": None,
}  # fmt: skip
ODD = [
    None, UNCHANGED, b"", b"\xff", b"\x00", b"{}", b"{", b'{"a"', b"[" * 5000, b'{"basePayload":' + b"[" * 5000,
    b"9" * 5000, b"-1", b"infinity", b"10000-01-01 00:00:00+00", b"NaN", b'{"basePayload":{"a":"\\u0000"}}', b"t",
    b'{"a":1e999}', b"x" * 5000, b'{"\\ud800"}',
]  # fmt: skip

relations = st.builds(
    lambda number, name, names: Relation(
        number,
        "sessions",
        name,
        ReplicaIdentity.FULL,
        tuple(Column(each, COLUMNS[each], -1, is_key=True) for each in names),
    ),
    st.integers(7, 8),
    st.sampled_from(["session", "run"]),
    st.just(list(COLUMNS)) | st.permutations(list(COLUMNS)).map(lambda names: names[:-2]),
)


def row_with(changes: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(changes.get(name, GOOD.get(name, b"x")) for name in COLUMNS)


rows = st.one_of(
    st.dictionaries(st.sampled_from(sorted(COLUMNS)), st.sampled_from(ODD), max_size=2).map(row_with),
    st.lists(st.sampled_from(ODD), max_size=3).map(tuple),
)
old_rows = st.builds(OldRow, rows, is_whole=st.booleans())
messages: st.SearchStrategy[Any] = st.one_of(
    relations,
    st.builds(Insert, st.integers(7, 9), rows),
    st.builds(Update, st.integers(7, 9), st.none() | old_rows, rows),
    st.builds(Delete, st.integers(7, 9), old_rows),
    st.builds(Truncate, st.lists(st.integers(7, 9), max_size=2).map(tuple), st.just(TruncateOption.CASCADE)),
    st.just(Begin(90, EPOCH, 1)),
    st.just(Commit(90, 91, EPOCH)),
)


def take_all(stream: list[bytes]) -> int:
    """Take a stream up to what is malformed in it; return how many changes came out."""
    transactions = Transactions("sessions", 3, 10_000, HeldMessages(5000))
    count = 0
    try:
        with suppress(MalformedMessageError):
            for raw in stream:
                commit = transactions.take(raw)
                for batch in [] if commit is None else transactions.batches(commit):
                    count += len(batch.changes) + len(batch.unreadable)
                    assert all(isinstance(change, Change) for change in batch.changes)
    finally:
        transactions.close()
    return count


@given(st.lists(messages, max_size=12))
def test_any_order_of_messages_gives_changes_or_is_malformed(sent: list[Any]) -> None:
    take_all([encode(Begin(90, EPOCH, 1)), *map(encode, sent), encode(Commit(90, 91, EPOCH))])


@given(relations, st.lists(st.builds(Insert, st.just(7), rows), min_size=1, max_size=6))
def test_every_row_of_the_table_is_a_change_or_a_dead_letter(relation: Relation, sent: list[Insert]) -> None:
    whole: list[Any] = [Begin(90, EPOCH, 1), relation, *sent, Commit(90, 91, EPOCH)]
    is_ours = (relation.id, relation.name) == (7, "session")
    assert take_all([encode(message) for message in whole]) == (len(sent) if is_ours else 0)


@given(st.lists(messages, min_size=1, max_size=8), st.data())
def test_a_damaged_stream_gives_changes_or_is_malformed(sent: list[Any], data: st.DataObject) -> None:
    stream = [encode(message) for message in (Begin(90, EPOCH, 1), *sent, Commit(90, 91, EPOCH))]
    for _ in range(data.draw(st.integers(1, 3))):
        hit = data.draw(st.integers(0, len(stream) - 1))
        at = data.draw(st.integers(0, len(stream[hit])))
        stream[hit] = (
            stream[hit][:at] + data.draw(st.binary(max_size=3)) + stream[hit][at + data.draw(st.integers(0, 3)) :]
        )
    take_all(stream)


HUGE = {
    "relations of a truncate": b"T" + struct.pack("!IB", 2**32 - 1, 0),
    "columns of a relation": b"R" + struct.pack("!I", 7) + b"a\0b\0d" + struct.pack("!H", 65_535),
    "values of a row": b"I" + struct.pack("!I", 7) + b"N" + struct.pack("!H", 65_535),
    "bytes of a value": b"I" + struct.pack("!I", 7) + b"N" + struct.pack("!H", 1) + b"t" + struct.pack("!I", 2**32 - 1),
    "a text without an end": b"O" + bytes(8) + b"x" * 1_000_000,
}


@pytest.mark.parametrize("raw", HUGE.values(), ids=HUGE)
def test_what_is_only_announced_takes_no_memory(raw: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessageError):
            decode(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


@given(st.sampled_from([b"w", b"k", b"x", b""]), st.binary(max_size=40))
def test_any_frame_is_read_or_malformed(mark: bytes, rest: bytes) -> None:
    with suppress(MalformedMessageError):
        decode_frame(mark + rest)
