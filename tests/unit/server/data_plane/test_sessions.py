"""What is held of an append session while it is carried out."""

from __future__ import annotations

import tracemalloc

import s2_sdk._generated.s2.v1.s2_pb2 as pb

from sessions_server.data_plane.appending import joined
from sessions_server.data_plane.compression import Compression
from sessions_server.data_plane.frames import encode_frame
from sessions_server.data_plane.records import MAX_BYTES
from sessions_server.data_plane.sessions import _Incoming

HALF = MAX_BYTES // 2


def test_batches_that_are_large_only_until_they_are_read_are_not_read_all_at_once() -> None:
    batch = pb.AppendInput(records=[pb.AppendRecord(body=b"x")]).SerializeToString()
    unknown = b"\x7a\x80\x80\x40" + bytes(MAX_BYTES)  # a field that is skipped
    incoming = _Incoming(30.0)
    groups = list(joined(incoming.batches(encode_frame(unknown + batch, Compression.GZIP) * 20)))
    incoming.close()
    assert [len(group) for group in groups] == [1] * 20


def test_of_many_batches_that_came_together_no_more_are_held_than_one_append_takes() -> None:
    batch = pb.AppendInput(records=[pb.AppendRecord(body=bytes(HALF - 100))]).SerializeToString()
    data = encode_frame(batch, Compression.ZSTD) * 400
    incoming, count = _Incoming(30.0), 0
    tracemalloc.start()
    try:
        for group in joined(incoming.batches(data)):
            assert sum(batch.size for batch in group) <= MAX_BYTES
            count += len(group)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    incoming.close()
    assert (len(data) < 100_000, count) == (True, 400)
    assert peak < 10 * MAX_BYTES
