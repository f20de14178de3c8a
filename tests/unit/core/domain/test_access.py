import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.access import (
    ACCESS,
    ANY_CREDENTIAL,
    SECRET_KEYS,
    Access,
    Action,
    Credential,
    Resource,
    Target,
    allows_any,
    allows_every,
    may_create,
    may_grant,
    may_list,
    run_scopes,
    session_resources,
    session_scopes,
)

# --- The grammar, against an independent reading of server.md 7.3 ---------------------------------

words = st.sampled_from(["read", "write", "admin", "*", "all", "sessions", "tasks", "runs", "x", "a:b", "", "x:y:z"])
scopes = st.lists(words, min_size=1, max_size=4).map(":".join)
actions = st.sampled_from(Action)
resources = st.builds(
    Resource, st.sampled_from(["sessions", "tasks", "runs"]), st.none() | st.sampled_from(["x", "a:b", "x:y:z", "all"])
)


def oracle(scope: str, action: str, resource: Resource) -> bool:
    if scope == "admin":
        return True
    match = re.fullmatch(r"([^:]*):([^:]*)(?::(.*))?", scope, re.DOTALL)
    if match is None or match[1] not in (action, "*"):
        return False
    return match[2] == "all" or (match[2] == resource.type and (match[3] is None or match[3] == resource.id))


@given(scopes, actions, resources)
def test_a_scope_grants_what_the_grammar_says(scope: str, action: Action, resource: Resource) -> None:
    assert allows_any([scope], action, [resource]) == oracle(scope, action, resource)


@given(st.lists(scopes, max_size=4), actions, st.lists(resources, max_size=4))
def test_any_needs_one_and_every_needs_all_and_nothing_never_suffices(
    held: list[str], action: Action, wanted: list[Resource]
) -> None:
    each = [any(oracle(scope, action, resource) for scope in held) for resource in wanted]
    assert allows_any(held, action, wanted) == any(each)
    assert allows_every(held, action, wanted) == (bool(each) and all(each))


X = Resource("sessions", "x")
COLONS = Resource("sessions", "a:b:c")
TYPE = Resource("sessions")


@pytest.mark.parametrize(
    ("scope", "action", "resource", "granted"),
    [
        ("admin", Action.READ, X, True),
        ("admin", Action.WRITE, TYPE, True),
        ("admin:", Action.READ, X, False),
        ("admin:sessions", Action.ADMIN, X, True),
        ("admin:sessions", Action.READ, X, False),
        ("admin:sessions:x", Action.ADMIN, X, True),
        ("admin:sessions:x", Action.ADMIN, COLONS, False),
        ("admin:all", Action.ADMIN, X, True),
        ("admin:all", Action.READ, X, False),
        ("write:sessions", Action.READ, X, False),
        ("write:sessions", Action.ADMIN, X, False),
        ("read:sessions:a:b:c", Action.READ, COLONS, True),
        ("read:sessions:a:b", Action.READ, COLONS, False),
        ("read:sessions:x", Action.READ, TYPE, False),
        ("read:sessions:", Action.READ, X, False),
        ("read:sessions:", Action.READ, TYPE, False),
        ("read", Action.READ, X, False),
        ("", Action.READ, X, False),
        ("*:all", Action.ADMIN, X, True),
        ("*:sessions:x", Action.ADMIN, X, True),
        ("*:tasks", Action.READ, X, False),
        ("*", Action.READ, X, False),
        ("READ:sessions", Action.READ, X, False),
        ("read:session", Action.READ, X, False),
        (" read:sessions", Action.READ, X, False),
    ],
)
def test_corners_of_the_grammar(scope: str, action: Action, resource: Resource, granted: bool) -> None:
    assert allows_any([scope], action, [resource]) is granted


# --- What upstream guards, server.md 14 ------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "tasks", "granted"),
    [
        ("read:tasks:foo", ["foo"], True),
        ("read:tasks:bar", ["foo"], False),
        ("read:tasks:foo", ["foo", "bar"], False),
        ("read:tasks:foo", [], False),
        ("read:sessions", [], True),
        ("read:sessions", ["foo"], True),
        ("read:all", [], True),
        ("admin", [], True),
        ("read:tasks", [], True),
        ("read:tasks", ["foo"], True),
        ("write:tasks:foo", ["foo"], False),
        ("read:sessions:x", [], False),
    ],
)
def test_29_listing(scope: str, tasks: list[str], granted: bool) -> None:
    assert may_list([scope], tasks) is granted


def test_29_listing_several_tasks_needs_each() -> None:
    assert may_list(["read:tasks:foo", "read:tasks:bar"], ["foo", "bar"])


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("write:tasks:foo", True),
        ("write:tasks:bar", False),
        ("write:tasks", True),
        ("write:sessions", True),
        ("write:all", True),
        ("admin", True),
        ("*:tasks:foo", True),
        ("read:tasks:foo", False),
        ("write:sessions:foo", False),
        ("write:sessions:x", False),
    ],
)
def test_30_creating(scope: str, granted: bool) -> None:
    assert may_create([scope], "foo") is granted


@pytest.mark.parametrize(
    ("route", "scope", "granted"),
    [
        ("retrieve_session", "read:sessions:session_1", True),
        ("retrieve_session", "read:sessions:mine", True),
        ("retrieve_session", "read:sessions", True),
        ("retrieve_session", "read:sessions:other", False),
        *((route, scope, True) for route in ("update_session", "close_session") for scope in (
            "admin:sessions:session_1", "admin:sessions:mine", "admin:sessions", "admin:all", "admin")),
        *((route, "write:sessions", False) for route in ("update_session", "close_session")),
        ("end_and_continue", "write:sessions", True),
        ("end_and_continue", "write:all", True),
        ("end_and_continue", "read:sessions", False),
        ("subscribe", "read:sessions", True),
        ("subscribe", "read:all", True),
        ("initialize_in", "write:sessions", True),
        ("append_in", "write:sessions", True),
        ("append_in", "write:all", True),
        ("append_in", "read:sessions:mine", False),
    ],
)  # fmt: skip
def test_31_to_33_one_session(route: str, scope: str, granted: bool) -> None:
    access = ACCESS[route]
    assert access.target is Target.SESSION
    assert allows_any([scope], access.action, session_resources("session_1", "mine")) is granted


def test_34_empty_lists_never_authorise() -> None:
    assert not allows_any([], Action.READ, [X])
    assert not allows_any(["admin"], Action.READ, [])
    assert not allows_every(["admin"], Action.READ, [])
    assert not may_list([], ["foo"])
    assert not may_create([], "foo")
    assert session_resources(None, "") == ()


# --- The table ------------------------------------------------------------------------------------


def test_the_table_names_every_route_once_and_completely() -> None:
    routes = {
        "create_session", "list_sessions", "retrieve_session", "update_session", "close_session", "end_and_continue",
        "list_session_runs", "list_session_waitpoints", "list_session_channels", "read_snapshot", "write_snapshot", "read_transcript", "initialize_in", "initialize_out",
        "subscribe", "read_records", "append_in", "append_out", "create_wait", "retrieve_waitpoint",
        "wait_for_waitpoint", "retrieve_run", "start_attempt", "heartbeat_run", "append_run_out", "complete_attempt",
        "read_token_claims", "create_public_token",
    }  # fmt: skip
    assert set(ACCESS) == routes
    for access in ACCESS.values():
        assert isinstance(access, Access)
        assert access.credentials


def test_these_routes_and_no_others_are_for_secret_keys_alone() -> None:
    secret = {"append_out", "initialize_out", "read_token_claims", "create_public_token"}
    assert {route for route, access in ACCESS.items() if access.credentials == SECRET_KEYS} == secret
    assert all(access.credentials == ANY_CREDENTIAL for route, access in ACCESS.items() if route not in secret)
    assert Credential.PUBLIC_TOKEN not in SECRET_KEYS < ANY_CREDENTIAL


@pytest.mark.parametrize(
    ("route", "action", "target"),
    [
        ("start_attempt", Action.WRITE, Target.OWN_RUN),
        ("heartbeat_run", Action.WRITE, Target.OWN_RUN),
        ("append_run_out", Action.WRITE, Target.OWN_RUN),
        ("complete_attempt", Action.WRITE, Target.OWN_RUN),
        ("create_wait", Action.WRITE, Target.OWN_WAIT),
        ("wait_for_waitpoint", Action.WRITE, Target.WAITPOINT),
        ("retrieve_waitpoint", Action.READ, Target.WAITPOINT),
    ],
)
def test_what_a_run_does_asks_for_a_right_to_runs(route: str, action: Action, target: Target) -> None:
    """Whoever carries a run out elsewhere has only the run token, so these routes take one: with a scope of its own."""
    assert ACCESS[route] == Access(action=action, target=target)


def test_only_handing_over_and_closing_may_be_done_as_the_calling_run() -> None:
    assert {route for route, access in ACCESS.items() if access.calling_run} == {"close_session", "end_and_continue"}


# Names that outsiders choose: they must never read as more than a name.
chosen = st.text() | words | st.lists(words, max_size=4).map(":".join)


@given(chosen, chosen)
def test_a_sessions_token_gives_no_right_to_any_run(key: str, run_id: str) -> None:
    for action, resource in itertools.product(Action, (Resource("runs", run_id), Resource("runs"))):
        assert not allows_any(session_scopes(key), action, [resource])


@given(chosen, chosen, chosen)
def test_a_runs_token_carries_out_that_run_reads_its_session_and_does_nothing_else(
    run_id: str, key: str, other: str
) -> None:
    held = run_scopes(run_id, key)
    for action, kind, name in itertools.product(Action, ("runs", "sessions", "tasks"), (run_id, key, other, None)):
        is_own = bool(name) and (
            (kind == "runs" and name == run_id and action is not Action.ADMIN)
            or (kind == "sessions" and name == key and action is Action.READ)
        )
        assert allows_any(held, action, [Resource(kind, name)]) == is_own
    assert not may_create(held, other)
    assert not may_list(held, [other])
    assert not may_grant(held, session_scopes(key))


def test_every_route_of_the_server_that_asks_for_access_is_in_the_table() -> None:
    package = Path(__file__).parents[4] / "src" / "server" / "sessions_server"
    asked = set()
    for source in package.rglob("*.py"):
        asked |= set(re.findall(r'ACCESS\["(\w+)"\]', source.read_text()))
    assert asked <= set(ACCESS)


# --- Handing scopes on ----------------------------------------------------------------------------


@given(st.lists(scopes, max_size=4), st.lists(scopes, max_size=3), actions, resources)
def test_a_granted_token_never_allows_more_than_its_maker_may(
    held: list[str], wanted: list[str], action: Action, resource: Resource
) -> None:
    if may_grant(held, wanted) and allows_any(wanted, action, [resource]):
        assert allows_any(held, action, [resource])


def test_escalation_is_impossible_over_the_whole_small_grammar() -> None:
    texts = [
        ":".join(parts)
        for parts in itertools.chain(
            itertools.product(["read", "admin", "*", "write"]),
            itertools.product(["read", "admin", "*"], ["sessions", "all", ""]),
            itertools.product(["read", "admin", "*"], ["sessions", "all", "tasks"], ["x", "", "x:y"]),
        )
    ]
    targets = [Resource(kind, name) for kind in ("sessions", "tasks") for name in (None, "x", "x:y")]
    for have, want in itertools.product(texts, texts):
        if may_grant([have], [want]):
            for action, target in itertools.product(Action, targets):
                assert oracle(have, action, target) or not oracle(want, action, target), (have, want)


@given(st.lists(scopes, min_size=1, max_size=4))
def test_a_holder_may_hand_on_exactly_what_it_has(held: list[str]) -> None:
    assert may_grant(held, held)
    assert may_grant(["admin"], held)


@pytest.mark.parametrize(
    ("held", "wanted", "granted"),
    [
        (["read:sessions"], ["read:sessions:x"], True),
        (["read:sessions:x"], ["read:sessions"], False),
        (["read:sessions:x"], ["read:sessions:y"], False),
        (["read:all"], ["read:tasks:foo"], True),
        (["*:all"], ["admin"], False),
        (["*:all"], ["admin:sessions"], True),
        (["admin:all"], ["admin"], False),
        (["admin:sessions"], ["admin"], False),
        (["admin:sessions"], ["admin:"], False),
        (["read:sessions"], ["*:sessions"], False),
        (["read:sessions", "write:sessions"], list(session_scopes("a:b")), True),
        (["read:sessions"], list(session_scopes("a:b")), False),
        ([], ["read:sessions"], False),
        ([], [], True),
    ],
)
def test_granting(held: list[str], wanted: list[str], granted: bool) -> None:
    assert may_grant(held, wanted) is granted


def test_a_sessions_token_reads_and_writes_that_session_only() -> None:
    for action, allowed in ((Action.READ, True), (Action.WRITE, True), (Action.ADMIN, False)):
        assert allows_any(session_scopes("a:b"), action, session_resources("session_1", "a:b")) is allowed
        assert not allows_any(session_scopes("a:b"), action, session_resources("session_2", "a"))
