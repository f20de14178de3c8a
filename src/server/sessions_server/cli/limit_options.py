"""The options of ``sessions serve`` that say how much anybody may ask."""

from __future__ import annotations

import argparse
from typing import Any, Final

from sessions_core.domain.rate import Rate
from sessions_core.errors import InvalidError
from sessions_server.limits.settings import LimitSettings, read_rate

_OF_WHAT: Final = {
    "environment_rate": "requests a second of one environment, and at once",
    "token_rate": "requests a second with one public token, and at once",
    "guess_rate": "credentials a second that do not work, from one address, and at once",
    "streams": "subscriptions and waits that are open at a time",
    "streams_per_environment": "those of one environment",
    "streams_per_session": "those of one session",
    "streams_per_token": "those with one public token",
    "unfinished_bytes": "bytes held of bodies of unfinished requests",
    "unfinished_bytes_per_environment": "those of one environment",
    "unfinished_bytes_per_token": "those with one public token",
    "client_address_header": "where a proxy in front names its client, such as X-Real-IP",
}


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each limit."""
    group = parser.add_argument_group("limits", "0 is no limit")
    usual = LimitSettings()
    for name, text in _OF_WHAT.items():
        value = getattr(usual, name)
        default = "" if value is None else f" (default: {value})"
        more: dict[str, Any] = {"type": int, "metavar": "N"} if isinstance(value, int) else {}
        if isinstance(value, Rate):
            more = {"metavar": "N[:AT_ONCE]"}
        elif value is None:
            more = {"metavar": "NAME"}
        group.add_argument(_option(name), help=text + default, **more)


def limits_given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given as options.

    Raises:
        InvalidError: One cannot be read.
    """
    given = {name: value for name in _OF_WHAT if (value := getattr(arguments, name)) is not None}
    return {name: _read_rate(name, value) if name.endswith("_rate") else value for name, value in given.items()}


def _read_rate(name: str, text: str) -> Rate | None:
    try:
        return read_rate(text)
    except InvalidError as error:
        raise InvalidError(_option(name), error.reason) from error
    except ValueError:
        raise InvalidError(_option(name), "cannot be read; it is a number, or two with a colon between them") from None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
