from datetime import UTC, datetime, timedelta

import pytest

from sessions_core.domain.status import ALIVE, WAITING_FOR_WORKER, RunStatus, SessionStatus, derive_status

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAST, FUTURE = NOW - timedelta(milliseconds=1), NOW + timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("closed_at", "expires_at", "status"),
    [
        (None, None, SessionStatus.ACTIVE),
        (None, FUTURE, SessionStatus.ACTIVE),
        (None, NOW, SessionStatus.EXPIRED),
        (None, PAST, SessionStatus.EXPIRED),
        (PAST, None, SessionStatus.CLOSED),
        (PAST, FUTURE, SessionStatus.CLOSED),
        (PAST, PAST, SessionStatus.CLOSED),
        (FUTURE, PAST, SessionStatus.CLOSED),
    ],
)
def test_closed_wins_over_expired_and_expiry_counts_from_its_very_moment(
    closed_at: datetime | None, expires_at: datetime | None, status: SessionStatus
) -> None:
    assert derive_status(closed_at, expires_at, NOW) is status


@pytest.mark.parametrize("status", RunStatus)
def test_a_run_is_alive_or_final(status: RunStatus) -> None:
    final = {"CANCELED", "COMPLETED_SUCCESSFULLY", "COMPLETED_WITH_ERRORS", "CRASHED", "EXPIRED", "TIMED_OUT"}
    assert status.is_alive == (status.value not in final)


def test_a_run_that_executes_waits_for_no_worker() -> None:
    assert WAITING_FOR_WORKER < ALIVE
    assert RunStatus.EXECUTING not in WAITING_FOR_WORKER
