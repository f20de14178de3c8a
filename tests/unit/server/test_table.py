"""The route table: complete against the table of permissions, and consistent in itself."""

from __future__ import annotations

import inspect

import pytest

from sessions_core.domain.access import ACCESS, Access, Action, Credential, Target
from sessions_core.domain.channel import Io
from sessions_server.route import Route
from sessions_server.table import ROUTES

each = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


def test_every_permission_is_asked_for_by_a_route_and_the_other_way_round() -> None:
    asked = {route.name.format(io=io) for route in ROUTES if route.name is not None for io in Io}
    assert asked == set(ACCESS)


def test_no_route_is_there_twice() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


@each
def test_what_reads_a_body_has_a_cap(route: Route) -> None:
    assert route.body is None or route.cap is not None
    assert route.cap is None or route.method in ("POST", "PUT", "PATCH")


@each
def test_a_permission_about_something_finds_it(route: Route) -> None:
    target = None if route.access is None else route.access.target
    if target is Target.SESSION:
        assert "{session}" in route.path
    elif target is Target.RUN:
        assert "{run}" in route.path
    elif target is Target.CREATE:
        assert route.body is not None
    elif target is Target.LIST:
        assert route.query is not None


@each
def test_only_what_tells_nothing_about_anybody_is_open(route: Route) -> None:
    if route.name is None:
        assert route.path in ("/healthz", "/readyz", "/metrics", "/openapi.json")


@each
def test_handlers_are_short(route: Route) -> None:
    lines = inspect.getsource(route.handler).splitlines()
    code = [line for line in lines if line.strip() and '"""' not in line]
    assert len(code) <= 14


@each
def test_what_changes_something_goes_on_without_its_client_and_uses_a_one_time_token_up(route: Route) -> None:
    if route.access is not None and route.access.action is not Action.READ and not is_root_only(route.access):
        is_append, does_nothing = route.name == "append_{io}", route.status == 404
        assert route.is_undisturbed is not (is_append or does_nothing)


def is_root_only(access: Access) -> bool:
    return Credential.PUBLIC_TOKEN not in access.credentials and access.target is not Target.SESSION
