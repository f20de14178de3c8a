"""From messages to batches: what is handed out, at which position, and what memory it takes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from harness.pgoutput import encode
from sessions_adapters.postgres.replication.held import HeldMessages
from sessions_adapters.postgres.replication.messages import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    Message,
    OldRow,
    Origin,
    Relation,
    ReplicaIdentity,
    RowValues,
    Truncate,
    TruncateOption,
    Update,
    Value,
)
from sessions_adapters.postgres.replication.progress import Progress
from sessions_adapters.postgres.replication.reader import EPOCH, MalformedMessageError
from sessions_adapters.postgres.replication.transactions import Transactions
from sessions_core.errors import InvalidError
from sessions_core.ports.change_feed import ChangeBatch, ChangeKind

TEXT, TEXTS, BIGINT, BOOLEAN, MOMENT, JSON = 25, 1009, 20, 16, 1184, 114
COLUMNS: dict[str, tuple[int, Value]] = {
    "id": (TEXT, b"session_1"),
    "environment_id": (TEXT, b"env"),
    "organization_id": (TEXT, b"org"),
    "project_id": (TEXT, b"proj"),
    "environment_type": (TEXT, b"DEVELOPMENT"),
    "external_id": (TEXT, None),
    "type": (TEXT, b"chat"),
    "task_identifier": (TEXT, b"echo"),
    "trigger_config": (JSON, b'{"basePayload":{}}'),
    "tags": (TEXTS, b"{a}"),
    "metadata": (JSON, b'{"a":1}'),
    "current_run_id": (TEXT, None),
    "current_run_version": (BIGINT, b"1"),
    "epoch": (BIGINT, b"0"),
    "closed_at": (MOMENT, None),
    "closed_reason": (TEXT, None),
    "expires_at": (MOMENT, None),
    "sealed_at": (MOMENT, None),
    "is_test": (BOOLEAN, b"f"),
    "created_at": (MOMENT, b"2026-01-01 00:00:00+00"),
    "updated_at": (MOMENT, b"2026-01-01 00:00:00+00"),
}
SESSIONS = Relation(
    7,
    "sessions",
    "session",
    ReplicaIdentity.FULL,
    tuple(Column(name, type_, -1, is_key=True) for name, (type_, _) in COLUMNS.items()),
)
OTHER = Relation(8, "sessions", "run", ReplicaIdentity.DEFAULT, (Column("id", TEXT, -1, is_key=True),))
BEGIN = Begin(90, EPOCH, 1)
BATCH_BYTES = 100_000


def row(**values: Value) -> RowValues:
    return tuple(values.get(name, value) for name, (_, value) in COLUMNS.items())


def insert(name: str) -> Insert:
    return Insert(7, row(id=name.encode()))


def commit(end: int) -> Commit:
    return Commit(end - 10, end, EPOCH)


@attrs.define
class Feed:
    """Transactions that are taken message by message."""

    transactions: Transactions

    def take(self, *messages: Message) -> list[ChangeBatch]:
        found: list[ChangeBatch] = []
        for message in messages:
            end = self.transactions.take(encode(message))
            if end is not None:
                found.extend(self.transactions.batches(end))
        return found


@pytest.fixture(params=[1_000_000, 0], ids=["in memory", "in a file"])
def feed(request: pytest.FixtureRequest) -> Iterator[Feed]:
    transactions = Transactions("sessions", 3, BATCH_BYTES, HeldMessages(request.param))
    yield Feed(transactions)
    transactions.close()


def ids(batch: ChangeBatch) -> list[str]:
    return [change.row.session.id for change in batch.changes]


def test_a_transactions_changes_come_at_its_end_in_its_order(feed: Feed) -> None:
    assert feed.take(BEGIN, SESSIONS, insert("session_b"), insert("session_a")) == []
    (batch,) = feed.take(commit(100))
    assert ids(batch) == ["session_b", "session_a"]
    assert (batch.position, batch.committed_at, batch.unreadable) == (100, EPOCH, ())
    assert {change.row.version for change in batch.changes} == {100}


def test_each_kind_of_change_is_told(feed: Feed) -> None:
    old = OldRow(row(type=b"old"), is_whole=True)
    (batch,) = feed.take(
        BEGIN, SESSIONS, insert("session_1"), Update(7, None, row(type=b"new")), Delete(7, old), commit(100)
    )
    assert [(change.kind, change.row.session.type, change.row.is_deleted) for change in batch.changes] == [
        (ChangeKind.INSERT, "chat", False),
        (ChangeKind.UPDATE, "new", False),
        (ChangeKind.DELETE, "old", True),
    ]


def test_a_large_transaction_comes_in_batches_of_which_only_the_last_has_its_position(feed: Feed) -> None:
    feed.take(BEGIN, SESSIONS, insert("session_0"), commit(50))
    batches = feed.take(BEGIN, *(insert(f"session_{n}") for n in range(7)), commit(100))
    assert [(len(batch.changes), batch.position) for batch in batches] == [(3, 50), (3, 50), (1, 100)]
    assert {change.row.version for batch in batches for change in batch.changes} == {100}


def large(name: str, size: int) -> Insert:
    return Insert(7, row(id=name.encode(), metadata=b'{"x":"' + b"x" * size + b'"}'))


def test_large_changes_come_in_smaller_batches_that_end_with_the_one_that_is_too_much(feed: Feed) -> None:
    sizes = [BATCH_BYTES // 2] * 4 + [1, BATCH_BYTES, 1]
    changes = [large(f"session_{n}", size) for n, size in enumerate(sizes)]
    batches = feed.take(BEGIN, SESSIONS, *changes, commit(100))
    assert [len(batch.changes) for batch in batches] == [2, 2, 2, 1]
    assert [batch.position for batch in batches] == [0, 0, 0, 100]


def test_a_transaction_that_fills_its_batches_has_no_empty_one(feed: Feed) -> None:
    batches = feed.take(BEGIN, SESSIONS, *(insert(f"session_{n}") for n in range(6)), commit(100))
    assert [(len(batch.changes), batch.position) for batch in batches] == [(3, 0), (3, 100)]


def test_other_tables_are_left_out(feed: Feed) -> None:
    elsewhere = attrs.evolve(SESSIONS, id=9, schema="public")
    messages = (Origin(1, "x"), OTHER, Insert(8, (b"run_1",)), elsewhere, Insert(9, row()))
    assert feed.take(BEGIN, *messages, commit(100)) == []
    assert len(feed.take(BEGIN, SESSIONS, insert("session_1"), commit(200))) == 1


def test_a_table_may_change_in_mid_transaction(feed: Feed) -> None:
    wider = attrs.evolve(SESSIONS, columns=(Column("extra", 23, -1, is_key=True), *SESSIONS.columns))
    narrow = Insert(7, row())
    (batch,) = feed.take(
        BEGIN, SESSIONS, narrow, wider, Insert(7, (b"5", *row(type=b"wide"))), SESSIONS, narrow, commit(100)
    )
    assert [change.row.session.type for change in batch.changes] == ["chat", "wide", "chat"]
    assert batch.unreadable == ()


def test_what_an_update_did_not_touch_is_taken_from_the_old_row(feed: Feed) -> None:
    new = row(metadata=UNCHANGED, type=b"new")
    (batch,) = feed.take(BEGIN, SESSIONS, Update(7, OldRow(row(), is_whole=True), new), commit(100))
    (change,) = batch.changes
    assert (change.row.session.metadata, change.row.session.type) == ({"a": 1}, "new")


@pytest.mark.parametrize(
    ("message", "session", "reason"),
    [
        (Update(7, None, row(metadata=UNCHANGED)), "session_1", "metadata: the old row was not sent whole"),
        (
            Update(7, OldRow(row(), is_whole=False), row(tags=UNCHANGED)),
            "session_1",
            "tags: the old row was not sent whole",
        ),
        (Delete(7, OldRow(row(type=None), is_whole=False)), "session_1", "the old row was not sent whole"),
        (Insert(7, row(created_at=b"yesterday")), "session_1", "created_at: not a moment"),
        (Insert(7, row(type=b"\xff")), "session_1", "type: 'utf-8' codec"),
        (Insert(7, row(type=b"x" * 65)), "session_1", "InvalidError: type must have 1 to 64 characters"),
        (Insert(7, row(trigger_config=b"{")), "session_1", "JSONDecodeError"),
        (Insert(7, row(tags=None)), "session_1", "TypeError"),
        (Insert(7, row()[:-1]), "session_1", "20 values for 21 columns"),
        (Insert(7, ()), None, "0 values for 21 columns"),
    ],
)
def test_a_row_that_makes_no_session_is_handed_out_as_it_is(
    feed: Feed, message: Insert | Update | Delete, session: str | None, reason: str
) -> None:
    (batch,) = feed.take(BEGIN, SESSIONS, insert("session_0"), message, insert("session_2"), commit(100))
    assert ids(batch) == ["session_0", "session_2"]
    (unreadable,) = batch.unreadable
    assert unreadable.session == session
    assert unreadable.version == 100
    assert reason in unreadable.reason
    assert unreadable.kind.value == type(message).__name__.lower()


def test_all_that_was_sent_of_an_unreadable_row_is_there(feed: Feed) -> None:
    message = Update(7, None, row(metadata=UNCHANGED, type=b"\xff"))
    (batch,) = feed.take(BEGIN, SESSIONS, message, commit(100))
    columns = batch.unreadable[0].columns
    assert set(columns) == set(COLUMNS) - {"metadata"}
    assert (columns["external_id"], columns["tags"], columns["type"]) == (None, "{a}", "\ufffd")


@pytest.mark.parametrize(
    "messages",
    [
        (SESSIONS,),
        (commit(100),),
        (BEGIN, BEGIN),
        (BEGIN, Insert(7, row()), commit(100)),
    ],
    ids=["before a begin", "a second end", "a second begin", "a table nobody described"],
)
def test_messages_in_no_order_are_malformed(feed: Feed, messages: tuple[Message, ...]) -> None:
    with pytest.raises(MalformedMessageError):
        feed.take(*messages)


def test_a_truncated_table_is_reported(feed: Feed, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "sessions.postgres"):
        assert feed.take(BEGIN, SESSIONS, OTHER, Truncate((8,), TruncateOption(0)), commit(100)) == []
        assert caplog.records == []
        assert feed.take(BEGIN, Truncate((8, 7), TruncateOption(0)), commit(200)) == []
    assert "truncated" in caplog.text


def test_held_messages_beyond_the_limit_are_not_in_memory() -> None:
    held = HeldMessages(10_000)
    messages = [bytes((n % 256,)) * (n % 1000) for n in range(1000)]
    for message in messages:
        held.add(message)
        assert sum(map(len, held._recent)) <= 10_000
    assert list(held) == messages
    held.clear()
    assert list(held) == []


def test_the_server_may_forget_what_was_acknowledged_and_no_more() -> None:
    progress = Progress()
    progress.hand(100)
    progress.hand(200)
    assert progress.safe == 0
    progress.skip_to(250)
    progress.acknowledge(100)
    assert progress.safe == 100
    progress.acknowledge(50)
    assert progress.safe == 100
    progress.acknowledge(200)
    assert progress.safe == 250, "nothing is outstanding: what concerns nobody counts, too"
    progress.hand(300)
    assert progress.safe == 200


def test_what_was_not_handed_out_cannot_be_acknowledged() -> None:
    progress: Any = Progress()
    progress.hand(100)
    with pytest.raises(InvalidError):
        progress.acknowledge(101)
    assert progress.acknowledged == 0
