"""The page of settings names every setting with its default."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import attrs

from sessions_server.config import REPLICATION_PREFIX, ClientConfig, Config, ReplicationVariables, variable_of

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"


def shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return str(int(value.total_seconds()))
    return str(int(value)) if isinstance(value, bool) else str(value)


def test_every_setting_is_on_the_page_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(SESSIONS?_\w+)` \|[^|]*\|(?: `([^`]*)`)? \|", PAGE.read_text(), re.MULTILINE))
    configs = ((Config(), "SESSIONS_"), (ClientConfig(), "SESSIONS_"), (ReplicationVariables(), REPLICATION_PREFIX))
    expected = {
        variable_of(field.name, prefix): shown(getattr(config, field.name))
        for config, prefix in configs
        for field in attrs.fields(type(config))
    }
    assert rows == expected
