"""What can be set from outside. The only reader of environment variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from sessions_core.errors import InvalidError

T = TypeVar("T")

DEFAULT_PORT: Final = 8787
_PREFIX: Final = "SESSIONS_"
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


def _set(
    default: Any, read: Callable[[str], Any], *, validator: Callable[..., Any] | None = None, repr: bool = True
) -> Any:  # noqa: A002 - the word of attrs
    return attrs.field(default=default, validator=validator, repr=repr, metadata={"read": read})


@attrs.frozen(kw_only=True)
class Config:
    """Settings of one server process. Each may be set as ``SESSIONS_<NAME>``, durations in seconds.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        profile: Named choice of adapters.
        data: Folder of the profiles that keep their data on this machine.
        database_url: Where the profiles that need Postgres find it.
        encryption_key: Protects root keys at rest; None makes one in the data folder.
        log_level: Least level of what is logged.
        log_json: One JSON object per line instead of plain text.
        access_log: One line per request. Off by default: it costs about as much as a request.
        session_token_lifetime: How long the token of a created session works.
        public_token_lifetime: How long a minted public token works if its request does not say.
        longest_public_token: The longest life a minted public token may ask for.
        subscribe_window: How long a subscription without ``Timeout-Seconds`` stays open without a record.
        ping_interval: How often a silent subscription is told the tail.
        slow_write: After this long without taking a frame a reader is cut off.
        drain_delay: How long a stopping server goes on serving after ``/readyz`` has begun to say no.
    """

    host: str = _set("127.0.0.1", str)
    port: int = _set(DEFAULT_PORT, int, validator=attrs.validators.in_(range(65536)))
    profile: str = _set("embedded", str)
    data: Path = _set(Path("data"), Path)
    database_url: str | None = _set(None, str, repr=False)
    encryption_key: str | None = _set(None, str, repr=False)
    log_level: str = _set("INFO", str.upper)
    log_json: bool = _set(False, _flag)
    access_log: bool = _set(False, _flag)
    session_token_lifetime: timedelta = _set(timedelta(hours=1), _seconds, validator=_positive)
    public_token_lifetime: timedelta = _set(timedelta(minutes=15), _seconds, validator=_positive)
    longest_public_token: timedelta = _set(timedelta(days=30), _seconds, validator=_positive)
    subscribe_window: timedelta = _set(timedelta(seconds=60), _seconds, validator=_positive)
    ping_interval: timedelta = _set(timedelta(seconds=5), _seconds, validator=_positive)
    slow_write: timedelta = _set(timedelta(seconds=30), _seconds, validator=_positive)
    drain_delay: timedelta = _set(timedelta(0), _seconds)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Config:
        """Read what is set in *environ*; the rest keeps its default.

        Raises:
            InvalidError: ``field`` names the variable that cannot be read.
        """
        given = {}
        for field in attrs.fields(cls):
            name = variable_of(field.name)
            if name in environ:
                given[field.name] = _read(name, environ[name], field.metadata["read"])
        return cls(**given)


def variable_of(setting: str) -> str:
    """Return the environment variable that sets *setting*."""
    return _PREFIX + setting.upper()


def _read(name: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except (ValueError, OverflowError):
        raise InvalidError(name, "cannot be read") from None
