"""Open streams are counted for everybody whose they are, and for nobody when they are over."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.ids import AddressingKey, EnvironmentId
from sessions_server.limits.settings import LimitSettings
from sessions_server.limits.streams import StreamLimits
from sessions_server.observability.metrics import Metrics
from sessions_server.problems import TooManyStreamsError

ONE, OTHER = EnvironmentId("env_one"), EnvironmentId("env_two")
OFF: dict[str, Any] = {"streams": 0, "streams_per_environment": 0, "streams_per_session": 0, "streams_per_token": 0}


def make_limits(**limits: int) -> StreamLimits:
    return StreamLimits(LimitSettings(**{**OFF, **limits}), Metrics())


def channel(key: str = "chat-1", io: Io = Io.OUT, env: EnvironmentId = ONE) -> Channel:
    return Channel(env, AddressingKey(key), io)


@pytest.mark.parametrize(
    ("limit", "kind", "same", "others"),
    [
        ("streams", "process", (OTHER, None, None), []),
        ("streams_per_environment", "environment", (ONE, "b", channel("x")), [(OTHER, "a", channel(env=OTHER))]),
        (
            "streams_per_session",
            "session",
            (ONE, "b", channel(io=Io.IN)),
            [(ONE, "a", channel("x")), (OTHER, "a", channel(env=OTHER)), (ONE, "a", None)],
        ),
        (
            "streams_per_token",
            "token",
            (ONE, "a", channel("x")),
            [(ONE, "b", channel()), (ONE, None, channel()), (OTHER, "a", channel(env=OTHER))],
        ),
    ],
)
def test_each_limit_is_somebodys_and_nobody_elses(
    limit: str,
    kind: str,
    same: tuple[EnvironmentId, str | None, Channel | None],
    others: list[tuple[EnvironmentId, str | None, Channel | None]],
) -> None:
    limits = make_limits(**{limit: 2})
    with limits.held(ONE, "a", channel()):
        with limits.held(ONE, "a", channel()):
            with pytest.raises(TooManyStreamsError) as refused, limits.held(*same):
                pass
            assert (refused.value.kind, refused.value.limit) == (kind, 2)
            with ExitStack() as stack:
                for other in others:
                    stack.enter_context(limits.held(*other))
        with limits.held(*same):
            pass
    assert len(limits) == 0


def test_one_that_is_refused_counts_for_nobody() -> None:
    limits = make_limits(streams=10, streams_per_session=1)
    with limits.held(ONE, None, channel()):
        before = len(limits)
        for _ in range(20):
            with pytest.raises(TooManyStreamsError), limits.held(OTHER, "a", None), limits.held(ONE, "a", channel()):
                pass
        assert len(limits) == before
    assert len(limits) == 0


def test_however_a_stream_ends_it_is_counted_down() -> None:
    limits = make_limits(streams=1)
    for error in (ValueError(), KeyboardInterrupt(), GeneratorExit()):
        with pytest.raises(type(error)), limits.held(ONE, None):
            raise error
    assert len(limits) == 0


def test_without_limits_nothing_is_kept() -> None:
    limits = make_limits()
    with limits.held(ONE, "a", channel()):
        assert len(limits) == 0
