"""Which systems hold what: a profile, and where the systems that it needs are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from sessions_core.errors import InvalidError

if TYPE_CHECKING:
    from sessions_adapters.clickhouse import ClickHouseConfig
    from sessions_adapters.postgres import PostgresConfig
    from sessions_adapters.procrastinate import ProcrastinateConfig
    from sessions_adapters.redis import RedisConfig
    from sessions_adapters.s2 import S2Config
    from sessions_adapters.sqlite import SqliteConfig
    from sessions_adapters.webhook import WebhookConfig

MEMORY: Final = "memory"
EMBEDDED: Final = "embedded"
POSTGRES: Final = "postgres"
SCALE: Final = "scale"
PROFILES: Final = (MEMORY, EMBEDDED, POSTGRES, SCALE)
STORE: Final = "store"
CLICKHOUSE: Final = "clickhouse"
INDEXES: Final = (STORE, CLICKHOUSE)
LOCAL: Final = "local"
WEBHOOK: Final = "webhook"
PROCRASTINATE: Final = "procrastinate"
DISPATCHERS: Final = (LOCAL, PROCRASTINATE, WEBHOOK)
DATABASE_NAME: Final = "sessions.db"
KEY_NAME: Final = "encryption.key"


def setting(name: str) -> str:
    """Return what a message calls a setting: the name that code uses, and that of the environment variable."""
    return f"{name} (SESSIONS_{name.upper()})"


def _one_of(allowed: tuple[str, ...]) -> Any:
    def check(_: object, attribute: attrs.Attribute[str], value: str) -> None:
        if value not in allowed:
            raise InvalidError(setting(attribute.name), f"must be one of {', '.join(allowed)}")

    return check


@attrs.frozen(kw_only=True)
class Backends:
    """A profile, and where its systems are.

    A profile is a named choice: it says what holds sessions, runs, waits and keys (the store), and which systems it cannot
    do without. Each of the three other URLs takes one group of ports out of the store, in any profile. What is missing is
    noticed when it is needed.

    Attributes:
        profile: ``memory`` (nothing survives the process), ``embedded`` (SQLite), ``postgres``, or ``scale`` (Postgres with
            channels in S2 and wake-ups in Redis).
        data: Directory of the embedded store, and of the encryption key if none is given.
        database_url: The Postgres database.
        s2_url: Channels are kept in this S2 basin, ``s2://:token@basin`` or ``s2://basin?endpoint=http://host:port``.
        redis_url: Wake-ups of waits go through this Redis, and requests are counted there.
        clickhouse_url: Has an index of sessions.
        index: What lists are read from: ``store``, or ``clickhouse``, which replication keeps up to date. ``scale`` reads from
            ClickHouse unless something else is said, and the others from the store.
        dispatcher: What carries runs out: ``local`` (the process itself), ``procrastinate`` (any process on the same Postgres
            that has agents for them), or ``webhook`` (an engine of one's own). ``postgres`` and ``scale`` have Procrastinate
            unless something else is said.
        webhook_url: Where the engine takes run requests.
        webhook_secret: What signs them.
        encryption_key: Protects root keys, the same for all processes; None takes the one in the directory.

    Raises:
        InvalidError: No such profile or index, or a database for a profile that uses none.
    """

    profile: str = attrs.field(default=EMBEDDED, validator=_one_of(PROFILES))
    data: Path | None = None
    database_url: str | None = attrs.field(default=None, repr=False)
    s2_url: str | None = attrs.field(default=None, repr=False)
    redis_url: str | None = attrs.field(default=None, repr=False)
    clickhouse_url: str | None = attrs.field(default=None, repr=False)
    index: str = attrs.field(validator=_one_of(INDEXES))
    dispatcher: str = attrs.field(validator=_one_of(DISPATCHERS))
    webhook_url: str | None = attrs.field(default=None, repr=False)
    webhook_secret: str | None = attrs.field(default=None, repr=False)
    encryption_key: str | None = attrs.field(default=None, repr=False)

    @dispatcher.default
    def _usual_dispatcher(self) -> str:
        return PROCRASTINATE if self.uses_postgres else LOCAL

    @index.default
    def _usual_index(self) -> str:
        return CLICKHOUSE if self.profile == SCALE else STORE

    def __attrs_post_init__(self) -> None:
        if self.database_url is not None and not self.uses_postgres:
            name, used = setting("database_url"), f"the profile {self.profile}"
            raise InvalidError(name, f"names a database, which {used} does not use: choose postgres or scale")
        if self.dispatcher == PROCRASTINATE and not self.uses_postgres:
            name, reason = setting("dispatcher"), f"needs a Postgres, which the profile {self.profile} has not"
            raise InvalidError(name, f"{PROCRASTINATE} {reason}: choose postgres or scale")

    @property
    def uses_postgres(self) -> bool:
        """Whether the store is a Postgres database, which processes share."""
        return self.profile in (POSTGRES, SCALE)

    @property
    def runs_are_local(self) -> bool:
        """Whether the process that dispatches a run carries it out; what it has not begun dies with it."""
        return self.dispatcher == LOCAL

    @property
    def directory(self) -> Path:
        """The directory.

        Raises:
            InvalidError: None was given.
        """
        if self.data is None:
            raise InvalidError(setting("data"), "must name a directory")
        return self.data

    def sqlite(self, *, owner: bool) -> SqliteConfig:
        """Say where the embedded store is."""
        from sessions_adapters import sqlite

        return sqlite.SqliteConfig(path=self.directory / DATABASE_NAME, owner=owner)

    def postgres(self) -> PostgresConfig:
        """Say where the Postgres store is."""
        url = self._needed("database_url")
        from sessions_adapters import postgres

        with _naming("database_url"):
            return postgres.PostgresConfig(url=url, lists=self.index == STORE)

    def s2(self) -> S2Config | None:
        """Say where channels are, if not in the store."""
        if self.profile != SCALE and self.s2_url is None:
            return None
        url = self._needed("s2_url")
        from sessions_adapters import s2

        with _naming("s2_url"):
            return s2.S2Config.from_url(url)

    def redis(self) -> RedisConfig | None:
        """Say where wake-ups go through, and where requests are counted, if not here and in the store."""
        if self.profile != SCALE and self.redis_url is None:
            return None
        url = self._needed("redis_url")
        from sessions_adapters import redis

        with _naming("redis_url"):
            return redis.RedisConfig(url=url)

    def clickhouse(self) -> ClickHouseConfig | None:
        """Say where the index outside the store is, if there is one, whether lists are read from it or not."""
        if self.index != CLICKHOUSE and self.clickhouse_url is None:
            return None
        url = self._needed("clickhouse_url")
        from sessions_adapters import clickhouse

        with _naming("clickhouse_url"):
            return clickhouse.ClickHouseConfig(url=url)

    def procrastinate(self) -> ProcrastinateConfig:
        """Say where its jobs are: in the Postgres of the store, in a schema beside the store's."""
        store = self.postgres()
        from sessions_adapters import procrastinate

        return procrastinate.ProcrastinateConfig(url=store.url, schema=f"{store.schema}_procrastinate")

    def webhook(self) -> WebhookConfig:
        """Say where the engine is."""
        url, secret = self._needed("webhook_url"), self._needed("webhook_secret")
        from sessions_adapters import webhook

        try:
            return webhook.WebhookConfig(url=url, secrets=secret)
        except InvalidError as error:
            raise InvalidError(setting(error.field), error.reason) from error

    def _needed(self, name: str) -> str:
        """Return the URL that is called *name*.

        Raises:
            InvalidError: It was not given.
        """
        url: str | None = getattr(self, name)
        if not url:
            raise InvalidError(setting(name), f"must be set: {self._needing(name)} needs it")
        return url

    def _needing(self, name: str) -> str:
        if name == "clickhouse_url":
            return f"the index {self.index}"
        return (
            f"the dispatcher {self.dispatcher}"
            if name in ("webhook_url", "webhook_secret")
            else f"the profile {self.profile}"
        )


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say which setting it is that breaks a rule of an adapter."""
    try:
        yield
    except InvalidError as error:
        raise InvalidError(setting(name), f"is wrong: {error}") from error
