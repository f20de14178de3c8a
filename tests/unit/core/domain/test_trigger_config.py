from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.ids import RunId, SessionId
from sessions_core.domain.trigger_config import (
    FIRST_RUN_ONLY,
    MACHINES,
    TriggerConfig,
    build_payload,
    check_tags,
)
from sessions_core.errors import InvalidError

SESSION = SessionId("session_1")
PREVIOUS = RunId("run_0")


def config(**members: Any) -> TriggerConfig:
    return TriggerConfig({"basePayload": {}, **members})


@pytest.mark.parametrize(
    "members",
    [
        {},
        *({"machine": machine} for machine in sorted(MACHINES)),
        {"queue": "q" * 128},
        {"queue": ""},
        {"concurrencyKey": "k" * 5000},
        {"tags": []},
        {"tags": ["t" * 128] * 10},
        {"maxAttempts": 1},
        {"maxAttempts": 10},
        {"maxDuration": 1},
        {"maxDuration": 10**6},
        {"lockToVersion": "20260101.1"},
        {"region": "eu"},
        {"idleTimeoutInSeconds": 1},
        {"idleTimeoutInSeconds": 3600},
        {"ttl": 1},
        {"ttl": "1h"},
        {"machine": None, "tags": None, "maxAttempts": None, "ttl": None},
        {"somethingNew": {"deep": [1, None, "x"]}},
    ],
)
def test_every_allowed_member_is_kept_as_it_was_given(members: dict[str, Any]) -> None:
    assert config(**members).members == {"basePayload": {}, **members}


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"machine": "huge"}, "machine"),
        ({"machine": 1}, "machine"),
        ({"machine": ["micro"]}, "machine"),
        ({"machine": {"preset": "micro"}}, "machine"),
        ({"queue": "q" * 129}, "queue"),
        ({"queue": {"name": "q"}}, "queue"),
        ({"concurrencyKey": 1}, "concurrencyKey"),
        ({"tags": "a,b"}, "tags"),
        ({"tags": {"a": 1}}, "tags"),
        ({"tags": ["t"] * 11}, "tags"),
        ({"tags": ["ok", "t" * 129]}, "tags[1]"),
        ({"tags": ["ok", "ok", 3]}, "tags[2]"),
        ({"tags": ["nul\x00"]}, "tags[0]"),
        ({"maxAttempts": 0}, "maxAttempts"),
        ({"maxAttempts": 11}, "maxAttempts"),
        ({"maxAttempts": 1.5}, "maxAttempts"),
        ({"maxAttempts": True}, "maxAttempts"),
        ({"maxAttempts": "3"}, "maxAttempts"),
        ({"maxDuration": 0}, "maxDuration"),
        ({"lockToVersion": 2}, "lockToVersion"),
        ({"region": []}, "region"),
        ({"idleTimeoutInSeconds": 0}, "idleTimeoutInSeconds"),
        ({"idleTimeoutInSeconds": 3601}, "idleTimeoutInSeconds"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": "t" * 129}, "ttl"),
        ({"ttl": [1]}, "ttl"),
        ({"basePayload": None}, "basePayload"),
        ({"basePayload": []}, "basePayload"),
        ({"basePayload": "text"}, "basePayload"),
        ({"basePayload": {"a": {"b": ["", "\x00"]}}}, "basePayload.a.b[1]"),
        ({"basePayload": {"a": "\udc00"}}, "basePayload.a"),
        ({"basePayload": {"a\x00": 1}}, "basePayload (a member's name)"),
        ({"extra": "\x00"}, "extra"),
    ],
)
def test_every_wrong_member_is_refused_under_its_own_name(members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        config(**members)
    assert caught.value.field == f"triggerConfig.{field}"
    assert caught.value.reason


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_config_that_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(InvalidError, match="triggerConfig must be an object"):
        TriggerConfig(value)


def test_a_config_without_base_payload_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"triggerConfig\.basePayload"):
        TriggerConfig({})


def test_a_trigger_config_needs_nothing() -> None:
    assert TriggerConfig().members == {"basePayload": {}}


def test_nesting_is_bounded() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    with pytest.raises(InvalidError, match="nested deeper"):
        config(extra=deep)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: 2}, b"bytes"])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(InvalidError, match=r"triggerConfig\.basePayload\.a"):
        TriggerConfig({"basePayload": {"a": value}})


def test_defaults_apply_where_nothing_is_said() -> None:
    assert config().max_attempts == 3
    assert config(maxAttempts=None).max_attempts == 3
    assert config(maxAttempts=7).max_attempts == 7
    assert config().tags == ()
    assert config(tags=["a", "b"]).tags == ("a", "b")


def test_a_tag_with_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"tags\[0\]"):
        check_tags(["\ud800"], field="tags")


def test_the_first_run_gets_the_base_payload_with_the_session_on_top() -> None:
    base = {"message": {"id": 1}, "messages": [], "trigger": "preload", "x": 1, "sessionId": "forged"}
    built = build_payload(
        SESSION, TriggerConfig({"basePayload": base, "idleTimeoutInSeconds": 9}), previous_run_id=None
    )
    assert built == {**base, "sessionId": SESSION, "idleTimeoutInSeconds": 9}
    assert "continuation" not in built


def test_a_continuation_does_not_see_what_only_a_first_run_may() -> None:
    base = {"message": 1, "messages": 2, "trigger": 3, "chatId": "c", "previousRunId": "forged"}
    built = build_payload(SESSION, TriggerConfig({"basePayload": base}), previous_run_id=PREVIOUS)
    assert built == {"chatId": "c", "sessionId": SESSION, "continuation": True, "previousRunId": PREVIOUS}


_names = st.sampled_from(["message", "messages", "trigger", "sessionId", "idleTimeoutInSeconds", "a", "b"])


@given(
    st.dictionaries(_names, st.integers()),
    st.none() | st.integers(1, 3600),
    st.none() | st.just(PREVIOUS),
)
def test_payload_layers_are_merged_by_their_rank(
    base: dict[str, int], idle: int | None, previous: RunId | None
) -> None:
    members: dict[str, Any] = {"basePayload": base} | ({} if idle is None else {"idleTimeoutInSeconds": idle})
    before = dict(base)
    built = build_payload(SESSION, TriggerConfig(members), previous_run_id=previous)
    assert base == before, "the stored config is never changed"
    assert built.pop("sessionId") == SESSION
    assert built.pop("idleTimeoutInSeconds", None) == (base.get("idleTimeoutInSeconds") if idle is None else idle)
    if previous is not None:
        assert built.pop("continuation") is True
        assert built.pop("previousRunId") == previous
    hidden = FIRST_RUN_ONLY if previous is not None else frozenset()
    assert built == {k: v for k, v in base.items() if k not in {"sessionId", "idleTimeoutInSeconds"} | hidden}
