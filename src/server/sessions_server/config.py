"""What can be set from outside. The only reader of environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import attrs

from sessions_core.errors import InvalidError

T = TypeVar("T")

DEFAULT_AGENTS: Final = "sessions_server.bundled:agents"
DEFAULT_PORT: Final = 8787
LAST_PORT: Final = 65_535
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
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


def _positive(_: object, attribute: attrs.Attribute[timedelta], value: timedelta) -> None:
    if value <= timedelta(0):
        raise InvalidError(attribute.name, "must be more than 0 seconds")


def _not_negative(_: object, attribute: attrs.Attribute[timedelta], value: timedelta) -> None:
    if value < timedelta(0):
        raise InvalidError(attribute.name, "must not be negative")


def _text_or_none(text: str) -> str | None:
    return text or None


def _port(_: object, __: object, value: int) -> None:
    if not 0 <= value <= LAST_PORT:
        raise InvalidError("port", f"must be 0 to {LAST_PORT}")


def _upper(text: str) -> str:
    return text.upper()


def _level(_: object, __: object, value: str) -> None:
    if value not in LEVELS:
        raise InvalidError("log_level", f"must be one of {', '.join(LEVELS)}")


_READERS: Final[Mapping[Any, Callable[[str], Any]]] = {
    "str": str,
    "str | None": _text_or_none,
    "int": int,
    "bool": _flag,
    "Path": Path,
    "timedelta": _seconds,
}


@attrs.frozen(kw_only=True)
class Config:
    """Settings of one server process. Each may be set as ``SESSIONS_<NAME>``, durations in seconds.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        profile: Named choice of adapters.
        data: Folder of the profile ``embedded``, and of the encryption key if none is given.
        database_url: Database of the profiles ``postgres`` and ``scale``.
        s2_url: S2 basin that keeps the channels instead of the store; the profile ``scale`` needs one.
        redis_url: Redis that wake-ups of waits go through instead of the store; the profile ``scale`` needs one.
        clickhouse_url: ClickHouse that has an index of sessions.
        index: What lists are read from: ``store`` or ``clickhouse``.
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
        slow_write: After this long without taking a frame a reader is cut off.
        drain_delay: How long a stopping server goes on serving after ``/readyz`` has begun to say no.
        drain: How long runs may then go on with what they are doing.
    """

    host: str = "127.0.0.1"
    port: int = attrs.field(default=DEFAULT_PORT, validator=_port)
    profile: str = "embedded"
    data: Path = Path("data")
    database_url: str | None = attrs.field(default=None, repr=False)
    s2_url: str | None = attrs.field(default=None, repr=False)
    redis_url: str | None = attrs.field(default=None, repr=False)
    clickhouse_url: str | None = attrs.field(default=None, repr=False)
    index: str = "store"
    encryption_key: str | None = attrs.field(default=None, repr=False)
    agents: str = DEFAULT_AGENTS
    demo: bool = False
    dev_key: str | None = attrs.field(default=None, repr=False)
    log_level: str = attrs.field(default="INFO", converter=_upper, validator=_level)
    log_json: bool = False
    access_log: bool = False
    session_token_lifetime: timedelta = attrs.field(default=timedelta(hours=1), validator=_positive)
    public_url: str | None = attrs.field(
        default=None, converter=lambda text: _trimmed_or_none(text and _address(text)), validator=attrs.validators.optional(_public)
    )
    direct_token_lifetime: timedelta = attrs.field(default=timedelta(hours=1), validator=_positive)
    public_token_lifetime: timedelta = attrs.field(default=timedelta(minutes=15), validator=_positive)
    longest_public_token: timedelta = attrs.field(default=timedelta(days=30), validator=_positive)
    subscribe_window: timedelta = attrs.field(default=timedelta(seconds=60), validator=_positive)
    ping_interval: timedelta = attrs.field(default=timedelta(seconds=5), validator=_positive)
    slow_write: timedelta = attrs.field(default=timedelta(seconds=30), validator=_positive)
    drain_delay: timedelta = attrs.field(default=timedelta(0), validator=_not_negative)
    drain: timedelta = attrs.field(default=timedelta(seconds=10), validator=_not_negative)

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


def _address(text: str) -> str:
    return text.strip().rstrip("/")


def _http(_: object, __: object, value: str) -> None:
    if not (value.isprintable() and _is_address(value)):
        raise InvalidError("url", "must be the address of a server, such as http://127.0.0.1:8787")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_address and not parts.query and not parts.fragment and parts.username is None


def _trimmed_or_none(text: str | None) -> str | None:
    return None if text is None else text.strip() or None


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


def wants_plain_text(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the person at the terminal wants no colours: https://no-color.org, or a terminal that has none."""
    return bool(environ.get("NO_COLOR")) or is_dumb(environ)


def is_dumb(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the terminal can do no more than print lines."""
    return environ.get("TERM") in ("dumb", "")


def _given(cls: type[attrs.AttrsInstance], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of *cls*'s fields that are set in *environ*."""
    given: dict[str, Any] = {}
    for field in attrs.fields(cls):
        name = variable_of(field.name)
        if name in environ:
            given[field.name] = _read(name, environ[name], _READERS[field.type])
    return given


def variable_of(setting: str) -> str:
    """Return the environment variable that sets *setting*."""
    return _PREFIX + setting.upper()


def _read(name: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except (ValueError, OverflowError):
        raise InvalidError(name, "cannot be read") from None
