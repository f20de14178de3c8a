"""Bytes of any kind after the preface: frames or a violation, the same wherever they are cut, and never much of them held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sessions_server.http2.frames import HEAD, FrameReader, Kind, ViolationError

MAX_FRAME = 64

heads = st.builds(
    lambda length, kind, flags, stream: length.to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4),
    st.sampled_from([0, 1, 4, 6, 8, 64, 65, 2**24 - 1]),
    st.sampled_from([*Kind, 5, 10, 255]),
    st.sampled_from([0, 1, 4, 5, 8, 255]),
    st.sampled_from([0, 1, 2, 3, 2**31, 2**32 - 1]),
)
streams = st.lists(st.one_of(heads, st.binary(max_size=70)), max_size=8).map(b"".join)


def read(data: bytes, cuts: list[int]) -> tuple[list[bytes], str | None]:
    reader, found, start = FrameReader(max_frame=MAX_FRAME, max_block=100), list[bytes](), 0
    try:
        for end in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
            reader.feed(data[start:end])
            start = end
            while (frame := reader.next()) is not None:
                found.append(frame.raw)
                _ = (frame.is_empty, frame.goaway_code, reader.is_in_headers)
            assert len(reader._buffer) - reader._at < HEAD + MAX_FRAME
    except ViolationError as violation:
        return found, f"{violation.code} {violation.reason}"
    return found, None


@given(streams, st.lists(st.integers(0, 1000), max_size=8))
def test_any_bytes_are_frames_or_a_violation_wherever_they_are_cut(data: bytes, cuts: list[int]) -> None:
    for sent in (data, bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)) + data):
        whole = read(sent, [])
        assert read(sent, cuts) == whole
        assert sent.startswith(b"".join(whole[0]))
