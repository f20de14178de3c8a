from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.ids import AddressingKey, EnvironmentId, RunId, WaitpointId
from sessions_core.domain.waitpoint import (
    TIMEOUT_CODE,
    Waitpoint,
    WaitpointStatus,
    parse_duration,
    parse_idempotency_ttl,
    parse_timeout,
    timeout_of,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
UNITS = {"w": 604800, "d": 86400, "h": 3600, "hr": 3600, "m": 60, "s": 1}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("1h30m", 5400),
        ("1hr", 3600),
        ("2w 3d", 2 * 604800 + 3 * 86400),
        (" 10 m ", 600),
        ("0s", 0),
        ("1m1m", 120),
        ("999999999w", 36500 * 86400),
    ],
)
def test_durations_add_up(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "10", "h", "1x", "-1h", "1.5h", "1h30", "PT1H", "1H", "1h,2m", "1" * 10 + "s"]
)
def test_what_is_no_duration_is_none(text: str) -> None:
    assert parse_duration(text) is None


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from(sorted(UNITS))), min_size=1, max_size=6))
def test_any_compound_of_known_units_is_their_sum(parts: list[tuple[int, str]]) -> None:
    expected = min(sum(n * UNITS[unit] for n, unit in parts), 36500 * 86400)
    assert parse_duration("".join(f"{n}{unit}" for n, unit in parts)) == timedelta(seconds=expected)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, None),
        ("", None),
        ("nonsense", None),
        ("1h", NOW + timedelta(hours=1)),
        ("2026-01-01T13:00:00Z", NOW + timedelta(hours=1)),
        ("2026-01-01T13:00:00", NOW + timedelta(hours=1)),
        ("2026-01-01T14:00:00+01:00", NOW + timedelta(hours=1)),
        ("2026-01-02", NOW + timedelta(hours=12)),
        ("2025-01-01T00:00:00Z", None),
        ("2026-01-01T12:00:00Z", None),
    ],
)
def test_a_timeout_is_a_date_first_then_a_duration(text: str | None, moment: datetime | None) -> None:
    assert parse_timeout(text, NOW) == moment


@given(st.text(max_size=20))
def test_any_text_is_a_timeout_in_the_future_or_none(text: str) -> None:
    moment = parse_timeout(text, NOW)
    assert moment is None or moment >= NOW


@pytest.mark.parametrize(
    ("text", "lasts"),
    [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("999999999d", timedelta(days=36500)),
        ("1w", None),
        ("1h30m", None),
        ("1 h", None),
        ("h", None),
        ("", None),
        (None, None),
    ],
)
def test_an_idempotency_ttl_is_one_number_and_one_unit(text: str | None, lasts: timedelta | None) -> None:
    assert parse_idempotency_ttl(text, NOW) == (None if lasts is None else NOW + lasts)


def test_a_timeout_says_so_and_when() -> None:
    waitpoint = Waitpoint(
        id=WaitpointId("waitpoint_1"),
        run_id=RunId("run_1"),
        channel=Channel(EnvironmentId("e"), AddressingKey("k"), Io.IN),
        created_at=NOW,
        expires_at=NOW + timedelta(seconds=1.5),
    )
    assert waitpoint.is_waiting
    end = timeout_of(waitpoint)
    assert end.status is WaitpointStatus.TIMED_OUT
    assert end.output == {"code": TIMEOUT_CODE, "message": "Waitpoint timed out at 2026-01-01T12:00:01.500Z"}
    assert end.seq is None
    assert not attrs.evolve(waitpoint, status="TIMED_OUT").is_waiting
