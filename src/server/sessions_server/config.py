"""What can be set from outside. The only reader of environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import attrs

from sessions_core.errors import InvalidError
from sessions_server.connections.settings import ConnectionSettings, one_or_more, positive
from sessions_server.limits.settings import LimitSettings, read_rate

T = TypeVar("T")

DEFAULT_AGENTS: Final = "sessions_server.bundled:agents"
DEFAULT_PORT: Final = 8787
LAST_PORT: Final = 65_535
MOST_PROCESSES: Final = 256
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
INSERT: Final = "insert"
INSERT_ASYNC: Final = "insert_async"
REPLICATION_PREFIX: Final = "SESSION_REPLICATION_"
_PREFIX: Final = "SESSIONS_"
_CREDENTIAL: Final = re.compile(r"[!-~]+")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE


def _seconds(text: str) -> timedelta:
    return timedelta(seconds=float(text))


def _not_negative(_: object, attribute: attrs.Attribute[timedelta], value: timedelta) -> None:
    if value < timedelta(0):
        raise InvalidError(attribute.name, "must not be negative")


def _text_or_none(text: str) -> str | None:
    return text or None


def _path_or_none(text: str) -> Path | None:
    return Path(text) if text else None


def _number_or_none(text: str) -> int | None:
    return int(text) if text else None


def _port(_: object, __: object, value: int) -> None:
    if not 0 <= value <= LAST_PORT:
        raise InvalidError("port", f"must be 0 to {LAST_PORT}")


def _processes(_: object, __: object, value: int) -> None:
    if not 1 <= value <= MOST_PROCESSES:
        raise InvalidError("processes", f"must be 1 to {MOST_PROCESSES}")


def _upper(text: str) -> str:
    return text.upper()


def _level(_: object, __: object, value: str) -> None:
    if value not in LEVELS:
        raise InvalidError("log_level", f"must be one of {', '.join(LEVELS)}")


_READERS: Final[Mapping[Any, Callable[[str], Any]]] = {
    "str": str,
    "str | None": _text_or_none,
    "int": int,
    "int | None": _number_or_none,
    "bool": _flag,
    "Path": Path,
    "Path | None": _path_or_none,
    "timedelta": _seconds,
    "Rate | None": read_rate,
}


def _address(text: str) -> str:
    return text.strip().rstrip("/")


def _address_or_none(text: str | None) -> str | None:
    return None if text is None else _address(text) or None


def _http(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not (value.isprintable() and _is_address(value)):
        raise InvalidError(attribute.name, "must be the address of a server, such as http://127.0.0.1:8787")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_address and not parts.query and not parts.fragment and parts.username is None


def _trimmed_or_none(text: str | None) -> str | None:
    return None if text is None else text.strip() or None


@attrs.frozen(kw_only=True)
class Config(ConnectionSettings, LimitSettings):
    """Settings of one server process. Each may be set as ``SESSIONS_<NAME>``, durations in seconds.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        processes: How many server processes share it.
        tls_cert: PEM file with the certificate to speak TLS with; None speaks without TLS.
        tls_key: PEM file with its key, if that is not in the same file.
        profile: Named choice of adapters.
        data: Folder of the profile ``embedded``, and of the encryption key if none is given.
        database_url: Database of the profiles ``postgres`` and ``scale``.
        s2_url: S2 basin that keeps the channels instead of the store; the profile ``scale`` needs one.
        redis_url: Redis that wake-ups of waits go through instead of the store, and that counts requests; the profile ``scale``
            needs one.
        clickhouse_url: ClickHouse that has an index of sessions.
        index: What lists are read from: ``store`` or ``clickhouse``; None for what is usual in the profile.
        dispatcher: What carries runs out: ``local`` (this process), ``procrastinate`` (any process on the same Postgres that has
            agents for them) or ``webhook`` (an engine of one's own); None for what is usual in the profile.
        webhook_url: Where the engine takes run requests.
        webhook_secret: What signs them: ``whsec_`` and random bytes in base64, or several of these between spaces.
        run_token_lifetime: How long the token of a run request works: the longest that a run may wait in its engine's queue.
        encryption_key: Protects root keys; None takes the one in ``data``.
        agents: ``module:attribute`` of the tasks that this process runs.
        demo: Show the chat page to everybody who reaches the server, not only to people on this machine.
        dev_key: Root key of the first environment, which is made when there is none; None makes one up.
        log_level: Least level of what is logged.
        log_json: One JSON object per line instead of plain text.
        access_log: One line per request. Off by default: it costs about as much as a request.
        session_token_lifetime: How long the token of a created session works.
        public_url: Address of this server as clients reach it, for the credentials of direct writers; None takes the one by which
            the request for them came.
        direct_token_lifetime: How long credentials for direct writes work.
        public_token_lifetime: How long a minted public token works if its request does not say.
        longest_public_token: The longest life a minted public token may ask for.
        subscribe_window: How long a subscription without ``Timeout-Seconds`` stays open without a record.
        ping_interval: How often a silent subscription is told the tail.
        drain_delay: How long a stopping server goes on serving after ``/readyz`` has begun to say no.
        drain: How long runs may then go on with what they are doing.
        concurrency: How many runs this process takes at once, where runs wait for whoever takes them.
        queues: Take only runs of these queues, with commas between them; None takes those of all queues.
        worker_version: Version of the agents of this process.
        stall: A run or a worker without a sign of life for so long is dead.
    """

    host: str = "127.0.0.1"
    port: int = attrs.field(default=DEFAULT_PORT, validator=_port)
    processes: int = attrs.field(default=1, validator=_processes)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    profile: str = "embedded"
    data: Path = Path("data")
    database_url: str | None = attrs.field(default=None, repr=False)
    s2_url: str | None = attrs.field(default=None, repr=False)
    redis_url: str | None = attrs.field(default=None, repr=False)
    clickhouse_url: str | None = attrs.field(default=None, repr=False)
    index: str | None = None
    dispatcher: str | None = None
    webhook_url: str | None = attrs.field(default=None, repr=False)
    webhook_secret: str | None = attrs.field(default=None, repr=False)
    run_token_lifetime: timedelta = attrs.field(default=timedelta(days=1), validator=positive)
    encryption_key: str | None = attrs.field(default=None, repr=False)
    agents: str = DEFAULT_AGENTS
    demo: bool = False
    dev_key: str | None = attrs.field(default=None, repr=False)
    log_level: str = attrs.field(default="INFO", converter=_upper, validator=_level)
    log_json: bool = False
    access_log: bool = False
    session_token_lifetime: timedelta = attrs.field(default=timedelta(hours=1), validator=positive)
    public_url: str | None = attrs.field(
        default=None, converter=_address_or_none, validator=attrs.validators.optional(_http)
    )
    direct_token_lifetime: timedelta = attrs.field(default=timedelta(hours=1), validator=positive)
    public_token_lifetime: timedelta = attrs.field(default=timedelta(minutes=15), validator=positive)
    longest_public_token: timedelta = attrs.field(default=timedelta(days=30), validator=positive)
    subscribe_window: timedelta = attrs.field(default=timedelta(seconds=60), validator=positive)
    ping_interval: timedelta = attrs.field(default=timedelta(seconds=5), validator=positive)
    drain_delay: timedelta = attrs.field(default=timedelta(0), validator=_not_negative)
    drain: timedelta = attrs.field(default=timedelta(seconds=10), validator=_not_negative)
    concurrency: int = attrs.field(default=200, validator=one_or_more)
    queues: str | None = None
    worker_version: str | None = None
    stall: timedelta = attrs.field(default=timedelta(seconds=15), validator=positive)

    @classmethod
    def load(cls) -> Config:
        """Read what this process's environment says."""
        return cls.from_environment(os.environ)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Config:
        """Read what is set in *environ*; the rest keeps its default.

        Raises:
            InvalidError: ``field`` names the variable that cannot be read.
        """
        return cls(**_given(cls, environ))


def _credential(_: object, __: object, value: str | None) -> None:
    if value is not None and _CREDENTIAL.fullmatch(value) is None:
        raise InvalidError("key", "must be one word of ASCII characters")


@attrs.frozen(kw_only=True)
class ClientConfig:
    """Settings of the commands that talk to a server. Each may be set as ``SESSIONS_<NAME>``.

    Attributes:
        url: Address of the server, without a slash at its end.
        key: A key of the environment, or a public token.
    """

    url: str = attrs.field(default=f"http://127.0.0.1:{DEFAULT_PORT}", converter=_address, validator=_http)
    key: str | None = attrs.field(default=None, converter=_trimmed_or_none, validator=_credential, repr=False)

    @classmethod
    def load(cls) -> ClientConfig:
        """Read what this process's environment says.

        Raises:
            InvalidError: A setting breaks a rule.
        """
        return cls(**_given(cls, os.environ))


def _from_one(default: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[int], value: int) -> None:
        if value < 1:
            raise InvalidError(REPLICATION_PREFIX + attribute.name.upper(), "must be at least 1")

    return attrs.field(default=default, validator=check)


def _strategy(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value not in (INSERT, INSERT_ASYNC):
        raise InvalidError(REPLICATION_PREFIX + attribute.name.upper(), f"must be {INSERT} or {INSERT_ASYNC}")


def _waiting(settings: ReplicationVariables, attribute: attrs.Attribute[bool], value: bool) -> None:
    if settings.insert_strategy == INSERT_ASYNC and not value:
        name = REPLICATION_PREFIX + attribute.name.upper()
        raise InvalidError(name, "must not be off: what ClickHouse has not stored yet may get lost")


def _without_secure(url: str | None) -> str | None:
    """Return *url* without the parameter ``secure``, which other clients of ClickHouse know; as it is if it cannot be read."""
    try:
        parts = urlsplit(url or "")
    except ValueError:  # its text may show the password; who uses the URL says what is wrong with it
        return url
    if not parts.query:
        return url or None
    kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "secure"]
    return urlunsplit(parts._replace(query=urlencode(kept)))


@attrs.frozen(kw_only=True)
class ReplicationVariables:
    """Settings of replication. Each may be set as ``SESSION_REPLICATION_<NAME>``.

    The names and nearly all defaults are those of the contract: durations are whole milliseconds where the name says so.

    Attributes:
        enabled: ``sessions serve`` replicates, too.
        clickhouse_url: Where rows go; None: ``SESSIONS_CLICKHOUSE_URL``. The parameter ``secure`` is left out.
        database_url: Where they come from, directly; None: ``SESSIONS_DATABASE_URL``.
        slot_name: The replication slot.
        publication_name: What it streams.
        max_flush_concurrency: So many batches may be written at once.
        flush_interval_ms: No row waits longer than this for others.
        flush_batch_size: So many rows are written without waiting for more.
        leader_lock_timeout_ms: A process that does not lead after this long and the additional time says so.
        leader_lock_additional_time_ms: See ``leader_lock_timeout_ms``.
        leader_lock_extend_interval_ms: So often a leader makes sure that it still leads …
        leader_lock_retry_interval_ms: … and the others try to; the shorter of both holds for both.
        log_level: Least level of what replication logs.
        clickhouse_log_level: Least level of what the driver of ClickHouse logs.
        insert_strategy: ``insert``, or ``insert_async``: ClickHouse gathers what several processes write.
        wait_for_async_insert: Must stay on: what is not waited for may get lost.
        keep_alive_enabled: Keep connections to ClickHouse open between writes.
        keep_alive_idle_socket_ttl_ms: Close one that was not used for this long; None: whenever ClickHouse does.
        max_open_connections: Connections to ClickHouse.
        insert_max_retries: After so many failures a batch counts as failed. It is tried on all the same.
        insert_base_delay_ms: Pause after the first failure; each further one doubles it.
        insert_max_delay_ms: The longest such pause.
        retained_wal_warning_mb: A warning is logged when Postgres keeps more of its log than this.
    """

    enabled: bool = False
    clickhouse_url: str | None = attrs.field(default=None, converter=_without_secure, repr=False)
    database_url: str | None = attrs.field(default=None, repr=False)
    slot_name: str = "sessions_to_clickhouse_v1"
    publication_name: str = "sessions_to_clickhouse_v1_publication"
    max_flush_concurrency: int = _from_one(1)
    flush_interval_ms: int = _from_one(1000)
    flush_batch_size: int = _from_one(100)
    leader_lock_timeout_ms: int = _from_one(30_000)
    leader_lock_additional_time_ms: int = _from_one(10_000)
    leader_lock_extend_interval_ms: int = _from_one(10_000)
    leader_lock_retry_interval_ms: int = _from_one(500)
    log_level: str = attrs.field(default="INFO", converter=_upper, validator=_level)
    clickhouse_log_level: str = attrs.field(default="INFO", converter=_upper, validator=_level)
    insert_strategy: str = attrs.field(default=INSERT, validator=_strategy)
    wait_for_async_insert: bool = attrs.field(default=True, validator=_waiting)
    keep_alive_enabled: bool = False
    keep_alive_idle_socket_ttl_ms: int | None = None
    max_open_connections: int = _from_one(10)
    insert_max_retries: int = _from_one(3)
    insert_base_delay_ms: int = _from_one(100)
    insert_max_delay_ms: int = _from_one(2000)
    retained_wal_warning_mb: int = _from_one(1024)

    @classmethod
    def load(cls) -> ReplicationVariables:
        """Read what this process's environment says.

        Raises:
            InvalidError: A setting breaks a rule.
        """
        return cls.from_environment(os.environ)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ReplicationVariables:
        """Read what is set in *environ*; the rest keeps its default.

        Raises:
            InvalidError: A setting breaks a rule.
        """
        return cls(**_given(cls, environ, REPLICATION_PREFIX))


def wants_plain_text(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the person at the terminal wants no colours: https://no-color.org, or a terminal that has none."""
    return bool(environ.get("NO_COLOR")) or is_dumb(environ)


def is_dumb(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the terminal can do no more than print lines."""
    return environ.get("TERM") in ("dumb", "")


def _given(cls: type[attrs.AttrsInstance], environ: Mapping[str, str], prefix: str = _PREFIX) -> dict[str, Any]:
    """Return the values of *cls*'s fields that are set in *environ*."""
    given: dict[str, Any] = {}
    for field in attrs.fields(cls):
        name = variable_of(field.name, prefix)
        if name in environ:
            given[field.name] = _read(name, environ[name], _READERS[field.type])
    return given


def variable_of(setting: str, prefix: str = _PREFIX) -> str:
    """Return the environment variable that sets *setting*."""
    return prefix + setting.upper()


def _read(name: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except InvalidError as error:
        raise InvalidError(name, error.reason) from None
    except (ValueError, OverflowError):
        raise InvalidError(name, "cannot be read") from None
