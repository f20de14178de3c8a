"""URLs of systems with a password in them, well-formed and not: they are taken or refused, and nothing repeats the password."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_adapters.clickhouse import ClickHouseConfig
from sessions_adapters.postgres import PostgresConfig
from sessions_adapters.procrastinate import ProcrastinateConfig
from sessions_adapters.profiles import Backends
from sessions_adapters.redis import RedisConfig
from sessions_adapters.s2 import S2Config
from sessions_adapters.webhook import WebhookConfig
from sessions_core.errors import InvalidError
from sessions_server.config import ClientConfig, Config, ReplicationVariables

WEBHOOK_SECRET = "whsec_" + "a" * 32

URLS = tuple(f"SESSIONS_{name}_URL" for name in ("DATABASE", "S2", "REDIS", "CLICKHOUSE", "WEBHOOK"))
MAKERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "Postgres": ("postgresql", lambda url: PostgresConfig(url=url)),
    "Procrastinate": ("postgres", lambda url: ProcrastinateConfig(url=url, schema="jobs")),
    "Redis": ("redis", lambda url: RedisConfig(url=url)),
    "ClickHouse": ("http", lambda url: ClickHouseConfig(url=url)),
    "S2": ("s2", S2Config.from_url),
    "an engine": ("https", lambda url: WebhookConfig(url=url, secrets=WEBHOOK_SECRET)),
    "database_url": ("postgresql", lambda url: Backends(profile="scale", database_url=url).postgres()),
    "s2_url": ("s2", lambda url: Backends(s2_url=url).s2()),
    "redis_url": ("rediss", lambda url: Backends(redis_url=url).redis()),
    "clickhouse_url": ("https", lambda url: Backends(clickhouse_url=url, index="clickhouse").clickhouse()),
    "webhook_url": ("http", lambda url: Backends(webhook_url=url, webhook_secret=WEBHOOK_SECRET).webhook()),
    "a server": ("http", lambda url: ClientConfig(url=url)),
    "all settings": ("postgresql", lambda url: Config.from_environment(dict.fromkeys(URLS, url))),
    "replication": ("http", lambda url: ReplicationVariables(clickhouse_url=url, database_url=url)),
}


passwords = st.text("abcXYZ019", min_size=4, max_size=10).flatmap(
    lambda word: st.text("#/?@:%[]&= \\\"'\n\r\té\u2100\x00", max_size=3).map(lambda odd: f"hunter2{odd}{word}!")
)
"""With a middle that has a meaning in URLs, if it is not encoded."""
schemes = st.sampled_from(["", "mysql", "HTTP", "s3", "chdb", "unix"])
places = st.sampled_from(
    [
        "db:5432/sessions",
        "db",
        "a-basin-of-ours",
        "a-basin-of-ours?endpoint=http://x:1",
        "db:99999999/x",
        "db:port",
        "[::1",
        "[::1]:5",
        "",
        "db/x?sslmode=%zz&y",
        "db#fragment",
        "a,b:1,c:x/db",
        "/no/host",
    ]
)


def said(error: BaseException) -> str:
    """Return everything that a log could show of *error*, its causes included, but not the test's own lines."""
    shown: traceback.TracebackException | None = traceback.TracebackException.from_exception(
        error, capture_locals=False
    )
    parts: list[str] = []
    while shown is not None:
        parts += shown.format_exception_only()
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    return "".join(parts) + repr(error)


@settings(max_examples=300)
@given(st.sampled_from(sorted(MAKERS)), st.none() | schemes, st.sampled_from(["sessions", ""]), passwords, places)
def test_no_password_is_repeated(name: str, scheme: str | None, user: str, password: str, place: str) -> None:
    usual, make = MAKERS[name]
    for url in (f"{scheme or usual}://{user}:{password}@{place}", f"{scheme or usual}://{password}@{place}", password):
        try:
            made = make(url)
        except InvalidError as error:
            shown = said(error)
        else:
            shown = f"{made!r} {made}"
        assert "hunter2" not in shown
        assert password[7:] not in shown


def test_nothing_of_the_files_is_repeated_either(tmp_path: Path) -> None:
    backends = Backends(data=tmp_path, encryption_key="hunter2" * 6, webhook_secret="whsec_hunter2")
    assert "hunter2" not in repr(backends)
