"""Settings and where they come from."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from sessions_core.errors import InvalidError
from sessions_server.config import Config


def test_nothing_set_means_the_defaults() -> None:
    assert Config.from_environment({"PATH": "/bin", "OTHER_PORT": "1"}) == Config()


def test_every_kind_of_setting_is_read() -> None:
    config = Config.from_environment(
        {
            "SESSIONS_HOST": "::",
            "SESSIONS_PORT": "0",
            "SESSIONS_DATA": "/srv/data",
            "SESSIONS_LOG_JSON": "yes",
            "SESSIONS_LOG_LEVEL": "debug",
            "SESSIONS_PING_INTERVAL": "1.5",
            "SESSIONS_DEV_KEY": "tr_dev_x",
            "SESSIONS_AGENTS": "mine:agents",
        }
    )
    assert (config.host, config.port, config.data) == ("::", 0, Path("/srv/data"))
    assert (config.log_json, config.log_level, config.ping_interval) == (True, "DEBUG", timedelta(seconds=1.5))
    assert (config.dev_key, config.agents) == ("tr_dev_x", "mine:agents")
    assert "tr_dev_x" not in repr(config)
    assert Config.from_environment({"SESSIONS_DEV_KEY": ""}).dev_key is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SESSIONS_PORT", "http"),
        ("SESSIONS_PORT", "65536"),
        ("SESSIONS_PORT", "-1"),
        ("SESSIONS_LOG_JSON", "maybe"),
        ("SESSIONS_LOG_LEVEL", "loud"),
        ("SESSIONS_PING_INTERVAL", "0"),
        ("SESSIONS_PING_INTERVAL", "soon"),
        ("SESSIONS_PING_INTERVAL", "nan"),
        ("SESSIONS_PING_INTERVAL", "1e300"),
        ("SESSIONS_DRAIN", "-1"),
        ("SESSIONS_DRAIN_DELAY", "-1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidError):
        Config.from_environment({name: text})
