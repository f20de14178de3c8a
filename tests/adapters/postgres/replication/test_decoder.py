"""Bytes to messages: what a real server sent, whatever can be written down, and whatever cannot be read."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pgoutput import encode, encode_data, encode_keepalive
from sessions_adapters.postgres.replication.decoder import decode
from sessions_adapters.postgres.replication.framing import decode_frame, encode_status
from sessions_adapters.postgres.replication.messages import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    Keepalive,
    LogData,
    Message,
    OldRow,
    Origin,
    Relation,
    ReplicaIdentity,
    Truncate,
    TruncateOption,
    Type,
    Update,
)
from sessions_adapters.postgres.replication.reader import EPOCH, MalformedMessageError

COMMITTED = datetime(2026, 11, 21, 9, 38, 20, 5622, tzinfo=UTC)
ROW = (b"1", b"one", None, b"2026-01-02 03:04:05.678+00", b'{a,"b c",NULL,""}', b"t", b"\\x00ff", b'{"a": 1}', b"ok")
NINE_NULLS = (None,) * 9
TYPES = [
    ("id", 20),
    ("name", 25),
    ("big", 25),
    ("at", 1184),
    ("tags", 1009),
    ("ok", 16),
    ("data", 17),
    ("j", 114),
    ("m", 16385),
    ("extra", 23),
]

FROM_A_SERVER: list[tuple[str, Message]] = [
    ("42000000000171ec80000303c4e3c5f0f6000002f3", Begin(24243328, COMMITTED, 755)),
    ("4300000000000171ec80000000000171ecb0000303c4e3c5f0f6", Commit(24243328, 24243376, COMMITTED)),
    ("4f0000000000000000656c7365776865726500", Origin(0, "elsewhere")),
    ("59000040017075626c6963006d6f6f6400", Type(16385, "public", "mood")),
    (
        (
            "52000040057075626c696300740066000a0169640000000014ffffffff016e616d650000000019ffffffff016269670000000019ffffffff"
            "01617400000004a0ffffffff017461677300000003f1ffffffff016f6b0000000010ffffffff01646174610000000011ffffffff"
            "016a0000000072ffffffff016d0000004001ffffffff0165787472610000000017ffffffff"
        ),
        Relation(
            16389,
            "public",
            "t",
            ReplicaIdentity.FULL,
            tuple(Column(name, type_, -1, is_key=True) for name, type_ in TYPES),
        ),
    ),
    (
        (
            "49000040054e000974000000013174000000036f6e656e740000001a323032362d30312d30322030333a30343a30352e3637382b3030"
            "74000000117b612c22622063222c4e554c4c2c22227d74000000017474000000065c783030666674000000087b2261223a20317d"
            "74000000026f6b"
        ),
        Insert(16389, ROW),
    ),
    (
        "55000040054b000a7400000001326e6e6e6e6e6e6e6e6e4e000a7400000001336e6e7400000008696e66696e6974796e6e6e6e6e6e",
        Update(16389, OldRow((b"2", *NINE_NULLS), is_whole=False), (b"3", None, None, b"infinity", *NINE_NULLS[3:])),
    ),
    (
        (
            "44000040054f000a740000000131740000000465696e73740000000178740000001a323032362d30312d30322030333a30343a30352e3637"
            "382b303074000000117b612c22622063222c4e554c4c2c22227d74000000017474000000065c783030666674000000087b2261223a20317d"
            "74000000026f6b6e"
        ),
        Delete(16389, OldRow((b"1", b"eins", b"x", *ROW[3:], None), is_whole=True)),
    ),
    ("44000040054b000a7400000001336e6e6e6e6e6e6e6e6e", Delete(16389, OldRow((b"3", *NINE_NULLS), is_whole=False))),
    (
        "54000000010300004005",
        Truncate((16389,), TruncateOption.CASCADE | TruncateOption.RESTART_IDENTITY),
    ),
]

numbers = st.integers(0, 2**32 - 1)
positions = st.integers(0, 2**64 - 1)
names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
moments = st.datetimes(datetime(1900, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
rows = st.lists(st.none() | st.just(UNCHANGED) | st.binary(max_size=50), max_size=30).map(tuple)
old_rows = st.builds(OldRow, rows, is_whole=st.booleans())
columns = st.builds(Column, names, numbers, st.integers(-(2**31), 2**31 - 1), is_key=st.booleans())
messages: st.SearchStrategy[Any] = st.one_of(
    st.builds(Begin, positions, moments, numbers),
    st.builds(Commit, positions, positions, moments),
    st.builds(Origin, positions, names),
    st.builds(Type, numbers, names, names),
    st.builds(
        Relation, numbers, names, names, st.sampled_from(ReplicaIdentity), st.lists(columns, max_size=30).map(tuple)
    ),
    st.builds(Insert, numbers, rows),
    st.builds(Update, numbers, st.none() | old_rows, rows),
    st.builds(Delete, numbers, old_rows),
    st.builds(
        Truncate, st.lists(numbers, max_size=5).map(tuple), st.sampled_from([TruncateOption(n) for n in range(4)])
    ),
)


@pytest.mark.parametrize(("raw", "message"), FROM_A_SERVER, ids=lambda value: str(value)[:30])
def test_what_a_server_sends_is_read(raw: str, message: Message) -> None:
    assert decode(bytes.fromhex(raw)) == message


def test_tables_of_the_catalogue_have_its_name() -> None:
    relation = Relation(1, "pg_catalog", "pg_class", ReplicaIdentity.NOTHING, ())
    assert decode(encode(relation)) == relation


@given(messages)
def test_whatever_is_written_down_is_read_again(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages, st.data())
def test_a_message_that_is_cut_off_is_malformed(message: Message, data: st.DataObject) -> None:
    raw = encode(message)
    with pytest.raises(MalformedMessageError):
        decode(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(messages, st.binary(min_size=1, max_size=5))
def test_a_message_with_more_behind_it_is_malformed(message: Message, more: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode(encode(message) + more)


@given(messages, st.data())
def test_a_damaged_message_is_read_or_malformed_and_nothing_else(message: Message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(MalformedMessageError):
        decode(bytes(raw))


@given(st.binary(max_size=200))
def test_noise_is_read_or_malformed_and_nothing_else(noise: bytes) -> None:
    for read in (decode, decode_frame):
        with suppress(MalformedMessageError):
            read(noise)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "ends too early"),
        (b"Z", "unknown message b'Z'"),
        (b"M\x00", "unknown message b'M'"),
        (b"C\x01" + bytes(24), "a commit has flags 1"),
        (b"B" + bytes(8) + b"\x7f" + bytes(7) + bytes(4), "out of range"),
        (b"O" + bytes(8) + b"name", "a text has no end"),
        (b"O" + bytes(8) + b"\xff\x00", "a text is not UTF-8"),
        (b"R" + bytes(4) + b"a\x00b\x00z\x00\x00", "unknown replica identity"),
        (b"R" + bytes(4) + b"a\x00b\x00d\x00\x01\x02c\x00" + bytes(8), "a flag is 2"),
        (b"I" + bytes(4) + b"K\x00\x00", "a new row is marked 75"),
        (b"I" + bytes(4) + b"N\x00\x01b\x00\x00\x00\x01x", "a value is marked 98"),
        (b"I" + bytes(4) + b"N\x00\x01t\xff\xff\xff\xffx", "a value is cut off"),
        (b"D" + bytes(4) + b"N\x00\x00", "an old row is marked 78"),
        (b"T" + bytes(4) + b"\x04", "unknown options of a truncate: 4"),
    ],
)
def test_what_is_wrong_is_said(raw: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessageError, match=reason):
        decode(raw)


@given(messages, positions)
def test_frames_carry_messages(message: Message, end: int) -> None:
    frame = decode_frame(encode_data(message, end=end))
    assert frame == LogData(encode(message))


@given(positions, st.booleans())
def test_keepalives_are_read(end: int, wants_reply: bool) -> None:
    assert decode_frame(encode_keepalive(end, wants_reply=wants_reply)) == Keepalive(end, EPOCH, wants_reply)


@pytest.mark.parametrize(
    "raw", [b"", b"x", b"w" + bytes(23), b"k" + bytes(16), b"k" + bytes(16) + b"\x02", b"k" + bytes(18)]
)
def test_other_frames_are_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_frame(raw)


def test_a_status_says_the_position_three_times_and_asks_for_nothing() -> None:
    status = encode_status(0x16B374D848, EPOCH + timedelta(microseconds=5))
    assert status.hex() == "72" + 3 * "00000016b374d848" + "0000000000000005" + "00"
