from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from sessions_server.http2.budget import Bucket, Budget
from sessions_server.http2.frames import Frame as Came
from sessions_server.http2.frames import ViolationError


def came(frame: Frame) -> Came:
    raw = frame.serialize()
    return Came(raw[3], raw[4], frame.stream_id, raw)


def cost(frame: Frame, *, is_late: bool = False, most: int = 20_000) -> int:
    """How many of it are taken at once; *most* if all are."""
    budget = Budget()
    for count in range(most):
        try:
            budget.charge(came(frame), 1000.0, is_late=is_late)
        except ViolationError:
            return count
    return most


def test_a_bucket_refills_with_time_but_never_overflows() -> None:
    bucket = Bucket("drops", size=10, per_second=2)
    for _ in range(10):
        bucket.spend(100.0)
    with pytest.raises(ViolationError, match="drops") as caught:
        bucket.spend(100.0)
    assert caught.value.code is ErrorCodes.ENHANCE_YOUR_CALM
    for now in (101.0, 101.5, 102.0):
        bucket.spend(now)
    for _ in range(10):
        bucket.spend(9000.0)
    with pytest.raises(ViolationError):
        bucket.spend(9000.0)


def test_what_is_earned_can_be_spent() -> None:
    bucket = Bucket("drops", size=10, per_second=0)
    for _ in range(50):
        bucket.spend(1.0)
        bucket.earn(1)


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, b"12345678"),
        SettingsFrame(0),
        PriorityFrame(1, stream_weight=1),
        DataFrame(1, b""),
        DataFrame(1, b"", pad_length=200, flags=["PADDED"]),
        RstStreamFrame(1),
        WindowUpdateFrame(0, window_increment=1),
    ],
)
def test_what_carries_nothing_has_a_limit(frame: Frame) -> None:
    assert 100 < cost(frame) <= 2000


@pytest.mark.parametrize(
    "frame", [DataFrame(1, b"x"), DataFrame(1, b"", flags=["END_STREAM"]), HeadersFrame(1, flags=["END_HEADERS"])]
)
def test_what_belongs_to_a_request_has_none(frame: Frame) -> None:
    assert cost(frame) == 20_000


@pytest.mark.parametrize("frame", [DataFrame(1, b"x"), HeadersFrame(1, flags=["END_HEADERS"])])
def test_what_comes_for_a_request_that_is_over_has_a_wide_one(frame: Frame) -> None:
    assert 2000 < cost(frame, is_late=True) <= 5000
