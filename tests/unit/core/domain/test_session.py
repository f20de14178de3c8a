from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.environment import Environment, EnvironmentType, KeyGrant, RootKey
from sessions_core.domain.ids import EnvironmentId, ExternalId, OrganizationId, ProjectId, RunId, SessionId
from sessions_core.domain.pagination import SessionFilter
from sessions_core.domain.run import Progress, first_run, next_run
from sessions_core.domain.session import MAX_METADATA_BYTES, UNSET, Session, SessionUpdate, to_milliseconds
from sessions_core.domain.status import RunStatus, SessionStatus
from sessions_core.domain.trigger_config import TriggerConfig
from sessions_core.errors import InvalidError, SessionClosedError, SessionExpiredError
from sessions_core.services.session_service import NewSession

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOME = Environment(
    id=EnvironmentId("env_1"),
    organization_id=OrganizationId("org_1"),
    project_id=ProjectId("proj_1"),
    type=EnvironmentType.DEVELOPMENT,
)
BASE: dict[str, Any] = {
    "id": SessionId("session_1"),
    "environment": HOME,
    "type": "chat.agent",
    "task": "echo",
    "trigger_config": TriggerConfig({"basePayload": {"message": 1, "x": 2}, "maxAttempts": 5}),
    "created_at": NOW,
    "updated_at": NOW,
}


def session(**changes: Any) -> Session:
    return Session(**{**BASE, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "t" * 64},
        {"type": " "},
        {"task": "t" * 128},
        {"tags": []},
        {"tags": ["x" * 128] * 10},
        {"metadata": None},
        {"metadata": {}},
        {"metadata": {"a": {"b": [1, 2.5, True, None, "é"]}}},
    ],
)
def test_what_the_contract_allows_is_accepted(changes: dict[str, Any]) -> None:
    made = session(**changes)
    assert isinstance(made.tags, tuple)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": ""}, "type"),
        ({"type": "t" * 65}, "type"),
        ({"type": "a\0"}, "type"),
        ({"task": ""}, "taskIdentifier"),
        ({"task": "t" * 129}, "taskIdentifier"),
        ({"task": "\udfff"}, "taskIdentifier"),
        ({"tags": ["x"] * 11}, "tags"),
        ({"tags": "x"}, "tags"),
        ({"tags": ["x", "y" * 129]}, "tags[1]"),
        ({"tags": [None]}, "tags[0]"),
        ({"tags": ["\0"]}, "tags[0]"),
        ({"tags": ["\ud800"]}, "tags[0]"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"a": ["\0"]}}, "metadata.a[0]"),
        ({"metadata": {"a": {"b\0": 1}}}, "metadata.a (a member's name)"),
        ({"metadata": {"a": float("nan")}}, "metadata.a"),
        ({"metadata": {"a": object()}}, "metadata.a"),
    ],
)
def test_what_it_forbids_is_refused_under_its_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        session(**changes)
    assert caught.value.field == field


def test_times_are_cut_to_milliseconds_in_utc() -> None:
    east = datetime(2026, 1, 1, 2, 0, 0, 123999, tzinfo=timezone(2 * HOUR))
    assert to_milliseconds(east) == datetime(2026, 1, 1, 0, 0, 0, 123000, tzinfo=UTC)
    made = session(created_at=east, updated_at=east, expires_at=east)
    assert made.created_at == made.updated_at == made.expires_at == NOW + timedelta(milliseconds=123)


def test_channels_are_addressed_by_environment_and_key() -> None:
    assert session().channel(Io.IN) == Channel(HOME.id, session().key, Io.IN)
    assert session(external_id=ExternalId("mine")).channel(Io.OUT).key == "mine"
    assert session().channel(Io.OUT).key == "session_1"


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({}, SessionStatus.ACTIVE, None),
        ({"expires_at": NOW + HOUR}, SessionStatus.ACTIVE, None),
        ({"expires_at": NOW}, SessionStatus.EXPIRED, SessionExpiredError),
        ({"closed_at": NOW, "closed_reason": "done"}, SessionStatus.CLOSED, SessionClosedError),
        ({"closed_at": NOW, "expires_at": NOW - HOUR}, SessionStatus.CLOSED, SessionClosedError),
    ],
)
def test_a_write_is_refused_for_the_reason_the_session_is_over(
    changes: dict[str, Any], status: SessionStatus, error: type[Exception] | None
) -> None:
    made = session(**changes)
    assert made.status(NOW) is status
    refusal = made.refusal(NOW)
    assert type(refusal) is (error or type(None))
    if refusal is not None:
        expected = "expired" if status is SessionStatus.EXPIRED else changes.get("closed_reason")
        assert refusal.closed_reason == expected
        assert "session_1" in str(refusal)


def test_a_session_answers_to_both_its_ids() -> None:
    made = session(external_id=ExternalId("mine"))
    assert made.is_named("mine")
    assert made.is_named("session_1")
    assert not made.is_named("other")


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({}, {}),
        ({"tags": UNSET, "metadata": UNSET}, {}),
        ({"tags": []}, {"tags": ()}),
        ({"tags": ["b", "c"]}, {"tags": ("b", "c")}),
        ({"metadata": None}, {"metadata": None}),
        ({"metadata": {}}, {"metadata": {}}),
        ({"metadata": {"x": 1}, "tags": ["z"]}, {"metadata": {"x": 1}, "tags": ("z",)}),
    ],
)
def test_an_update_replaces_what_it_names_and_leaves_the_rest(change: dict[str, Any], changed: dict[str, Any]) -> None:
    before = session(tags=["a"], metadata={"old": True})
    after = SessionUpdate(**change).apply(before, NOW + HOUR)
    assert after == attrs.evolve(before, updated_at=NOW + HOUR, **changed)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"tags": ["x"] * 11}, "tags"), ({"tags": None}, "tags"), ({"metadata": [1]}, "metadata")],
)
def test_a_wrong_update_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        SessionUpdate(**change)
    assert caught.value.field == field


# --- Runs -----------------------------------------------------------------------------------------


def test_the_first_run_starts_at_the_beginning_with_version_one() -> None:
    run = first_run(session(), RunId("run_1"), NOW)
    assert (run.version, run.reason, run.status) == (1, "initial", RunStatus.PENDING)
    assert run.start == Progress(-1, 0)
    assert run.payload == {"message": 1, "x": 2, "sessionId": "session_1"}
    assert run.is_alive


def test_a_next_run_goes_on_where_the_previous_one_ended_or_else_started() -> None:
    first = attrs.evolve(first_run(session(), RunId("run_1"), NOW), start=Progress(3, 4))
    current = session(current_run_id=first.id, current_run_version=1)
    after_death = next_run(current, RunId("run_2"), reason="continuation", now=NOW, previous=first)
    assert (after_death.version, after_death.start) == (2, Progress(3, 4))
    assert after_death.previous_run_id == "run_1"
    assert after_death.payload == {"x": 2, "sessionId": "session_1", "continuation": True, "previousRunId": "run_1"}
    ended = attrs.evolve(first, end=Progress(7, 9), status=RunStatus.COMPLETED_SUCCESSFULLY)
    assert next_run(current, RunId("r"), reason="x", now=NOW, previous=ended).start == Progress(7, 9)


def test_a_next_run_after_a_lost_record_still_names_its_predecessor() -> None:
    current = session(current_run_id=RunId("run_1"), current_run_version=1)
    run = next_run(current, RunId("run_2"), reason="continuation", now=NOW, previous=None)
    assert run.previous_run_id == "run_1"
    assert run.start == Progress()
    assert run.payload["continuation"] is True


def test_a_run_that_must_wait_is_delayed() -> None:
    later = NOW + HOUR
    run = next_run(session(), RunId("r"), reason="x", now=NOW, previous=None, failures=2, dispatch_after=later)
    assert (run.status, run.failures, run.dispatch_after) == (RunStatus.DELAYED, 2, later)
    assert run.is_alive


# --- Filters and keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "admitted"),
    [
        ({}, True),
        ({"types": ("chat.agent", "x")}, True),
        ({"types": ("x",)}, False),
        ({"tags": ("a", "nope")}, True),
        ({"tags": ("nope",)}, False),
        ({"tasks": ("echo",)}, True),
        ({"tasks": ("other",)}, False),
        ({"external_id": ExternalId("mine")}, True),
        ({"external_id": ExternalId("yours")}, False),
        ({"created_from": NOW, "created_to": NOW}, True),
        ({"created_from": NOW + HOUR}, False),
        ({"created_to": NOW - HOUR}, False),
        ({"statuses": (SessionStatus.ACTIVE,)}, True),
        ({"statuses": (SessionStatus.CLOSED, SessionStatus.EXPIRED)}, False),
        ({"environment_id": EnvironmentId("env_2")}, False),
        ({"types": ("chat.agent",), "tasks": ("other",)}, False),
    ],
)
def test_a_filter_joins_members_by_and_and_values_by_or(wanted: dict[str, Any], admitted: bool) -> None:
    made = session(tags=["a", "b"], external_id=ExternalId("mine"))
    assert SessionFilter(**{"environment_id": HOME.id, **wanted}).admits(made, NOW) is admitted


def test_a_key_works_until_its_end() -> None:
    assert RootKey(value="k").is_valid(NOW)
    assert RootKey(value="k", expires_at=NOW + HOUR).is_valid(NOW)
    assert not RootKey(value="k", expires_at=NOW).is_valid(NOW)
    assert not KeyGrant(environment=HOME, expires_at=NOW).is_valid(NOW)
    assert "k" not in repr(RootKey(value="secret-k")).replace("RootKey", "")


@pytest.mark.parametrize(
    ("kind", "slug"), [("DEVELOPMENT", "dev"), ("STAGING", "stg"), ("PRODUCTION", "prod"), ("PREVIEW", "preview")]
)
def test_every_kind_of_environment_has_a_slug(kind: str, slug: str) -> None:
    assert EnvironmentType(kind).slug == slug


@pytest.mark.parametrize(
    "give",
    [lambda metadata: SessionUpdate(metadata=metadata), lambda metadata: NewSession(task="t", metadata=metadata)],
    ids=["update", "create"],
)
def test_metadata_that_is_given_has_a_greatest_size_and_what_is_stored_is_not_measured(give: Any) -> None:
    largest = {"é": "x" * (MAX_METADATA_BYTES - len('{"é":""}'.encode()))}
    assert give(largest).metadata == largest
    larger = {"é": largest["é"] + "x"}
    with pytest.raises(InvalidError) as caught:
        give(larger)
    assert caught.value.field == "metadata"
    assert session(metadata=larger).metadata == larger
