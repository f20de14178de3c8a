"""Settings and where they come from."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final

import attrs
import pytest

from sessions_adapters.profiles import ReplicationSettings
from sessions_core.errors import InvalidError
from sessions_core.services.replication.config import ReplicatorConfig
from sessions_server.cli.backends import replication_of
from sessions_server.config import ClientConfig, Config, ReplicationVariables, is_dumb, wants_plain_text


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


# --- of replication ---

OF_THE_CONTRACT: Final = {
    "CLICKHOUSE_URL": None,
    "ENABLED": False,
    "DATABASE_URL": None,
    "SLOT_NAME": "sessions_to_clickhouse_v1",
    "PUBLICATION_NAME": "sessions_to_clickhouse_v1_publication",
    "MAX_FLUSH_CONCURRENCY": 1,
    "FLUSH_INTERVAL_MS": 1000,
    "FLUSH_BATCH_SIZE": 100,
    "LEADER_LOCK_TIMEOUT_MS": 30_000,
    "LEADER_LOCK_EXTEND_INTERVAL_MS": 10_000,
    "LEADER_LOCK_ADDITIONAL_TIME_MS": 10_000,
    "LEADER_LOCK_RETRY_INTERVAL_MS": 500,
    "LOG_LEVEL": "INFO",
    "CLICKHOUSE_LOG_LEVEL": "INFO",
    "KEEP_ALIVE_ENABLED": False,
    "KEEP_ALIVE_IDLE_SOCKET_TTL_MS": None,
    "MAX_OPEN_CONNECTIONS": 10,
    "INSERT_STRATEGY": "insert",
    "INSERT_MAX_RETRIES": 3,
    "INSERT_BASE_DELAY_MS": 100,
    "INSERT_MAX_DELAY_MS": 2000,
}
OUR_OWN: Final = {"WAIT_FOR_ASYNC_INSERT": True, "RETAINED_WAL_WARNING_MB": 1024}
"""The first is in the contract, where it may be off, and then acknowledged rows may get lost."""


def test_replication_has_the_defaults_of_the_contract() -> None:
    given = ReplicationVariables.from_environment({})
    assert {name.upper(): value for name, value in attrs.asdict(given).items()} == OF_THE_CONTRACT | OUR_OWN


def test_every_setting_of_replication_reaches_what_it_is_for() -> None:
    given = ReplicationVariables(
        clickhouse_url="http://sink",
        database_url="postgresql://direct/db",
        slot_name="slot",
        publication_name="publication",
        max_flush_concurrency=2,
        flush_interval_ms=3,
        flush_batch_size=4,
        leader_lock_timeout_ms=5,
        leader_lock_additional_time_ms=6,
        leader_lock_extend_interval_ms=8,
        leader_lock_retry_interval_ms=7,
        insert_strategy="insert_async",
        keep_alive_enabled=True,
        keep_alive_idle_socket_ttl_ms=9,
        max_open_connections=11,
        insert_max_retries=12,
        insert_base_delay_ms=13,
        insert_max_delay_ms=14,
        retained_wal_warning_mb=15,
    )
    ms = [timedelta(milliseconds=number) for number in range(16)]
    config = Config(profile="postgres", database_url="postgresql://pooled/db", clickhouse_url="http://elsewhere")
    assert replication_of(config, given) == ReplicationSettings(
        database_url="postgresql://direct/db",
        clickhouse_url="http://sink",
        slot="slot",
        publication="publication",
        replicator=ReplicatorConfig(
            flush_concurrency=2,
            flush_interval=ms[3],
            flush_batch_size=4,
            leader_lock_timeout=ms[5],
            leader_lock_additional_time=ms[6],
            insert_attempts=12,
            insert_base_delay=ms[13],
            insert_max_delay=ms[14],
        ),
        leader_check=ms[7],
        insert_async=True,
        keep_alive=ms[9],
        workers=11,
        retained_bytes=15 << 20,
    )


def test_replication_has_names_of_its_own() -> None:
    given = ReplicationVariables.from_environment(
        {
            "SESSION_REPLICATION_ENABLED": "1",
            "SESSION_REPLICATION_FLUSH_INTERVAL_MS": "250",
            "SESSION_REPLICATION_KEEP_ALIVE_IDLE_SOCKET_TTL_MS": "",
            "SESSION_REPLICATION_LOG_LEVEL": "debug",
            "SESSIONS_SLOT_NAME": "not_this_one",
        }
    )
    assert (given.enabled, given.flush_interval_ms, given.log_level) == (True, 250, "DEBUG")
    assert given == ReplicationVariables(enabled=True, flush_interval_ms=250, log_level="DEBUG")


def test_the_parameter_secure_is_left_out_of_the_address() -> None:
    given = ReplicationVariables(clickhouse_url="https://u:p@host:8443/?secure=true&compression=lz4")
    assert given.clickhouse_url == "https://u:p@host:8443/?compression=lz4"
    assert "u:p" not in repr(given)


@pytest.mark.parametrize(
    "environ",
    [
        {"SESSION_REPLICATION_FLUSH_BATCH_SIZE": "0"},
        {"SESSION_REPLICATION_INSERT_STRATEGY": "sometimes"},
        {"SESSION_REPLICATION_LOG_LEVEL": "loud"},
        {"SESSION_REPLICATION_INSERT_STRATEGY": "insert_async", "SESSION_REPLICATION_WAIT_FOR_ASYNC_INSERT": "0"},
    ],
)
def test_a_setting_of_replication_that_cannot_be_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(InvalidError):
        ReplicationVariables.from_environment(environ)


# --- of the commands that talk to a server ---


def test_a_client_finds_its_server_and_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONS_URL", "https://sessions.example:8443/below/ ")
    monkeypatch.setenv("SESSIONS_KEY", " tr_dev_x\n")
    config = ClientConfig.load()
    assert (config.url, config.key) == ("https://sessions.example:8443/below", "tr_dev_x")
    assert "tr_dev_x" not in repr(config)
    monkeypatch.setenv("SESSIONS_KEY", "")
    assert ClientConfig.load().key is None


@pytest.mark.parametrize(
    "url",
    ["", "localhost", "localhost:8787", "ftp://x", "http://", "http://x?y", "http://x#y", "http://u:p@x", "http://x:y",
     "http://x:99999", "http://[::1", "http://x\n"[:-1] + "\x1b"],
)  # fmt: skip
def test_an_address_has_to_be_one(url: str) -> None:
    with pytest.raises(InvalidError, match="url must be the address"):
        ClientConfig(url=url)


@pytest.mark.parametrize("key", ["two words", "a\nb", "ä", "x\x00"])
def test_a_key_is_one_word_and_is_not_repeated(key: str) -> None:
    with pytest.raises(InvalidError, match=r"^key must be one word of ASCII characters$"):
        ClientConfig(key=key)


@pytest.mark.parametrize(
    ("environ", "plain", "dumb"),
    [
        ({}, False, False),
        ({"TERM": "xterm"}, False, False),
        ({"NO_COLOR": ""}, False, False),
        ({"NO_COLOR": "0"}, True, False),
        ({"TERM": "dumb"}, True, True),
    ],
)
def test_colours_are_left_out_when_somebody_says_so(environ: dict[str, str], plain: bool, dumb: bool) -> None:
    assert (wants_plain_text(environ), is_dumb(environ)) == (plain, dumb)
