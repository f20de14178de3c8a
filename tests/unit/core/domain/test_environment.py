"""Environments: what names one."""

from __future__ import annotations

import pytest

from sessions_core.domain.environment import MAX_ID, Environment, EnvironmentType
from sessions_core.errors import InvalidError


def test_an_environment_needs_nothing_but_an_id() -> None:
    environment = Environment(id="acme")
    assert (environment.organization_id, environment.project_id) == ("default", "default")
    assert environment.type is EnvironmentType.PRODUCTION


@pytest.mark.parametrize("name", ["", "x" * (MAX_ID + 1), "nul\x00", "\ud800"])
def test_an_id_that_not_every_store_can_keep_is_refused(name: str) -> None:
    with pytest.raises(InvalidError) as refused:
        Environment(id=name)
    assert refused.value.field == "environment"


@pytest.mark.parametrize("name", ["x", "x" * MAX_ID, "tenant 1/ä"])
def test_any_other_text_names_an_environment(name: str) -> None:
    assert Environment(id=name).id == name
