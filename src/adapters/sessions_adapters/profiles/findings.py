"""What ``sessions doctor`` finds, in words that show no secret."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import attrs

_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_IN_OUR_WORDS: Final = {
    "InvalidCatalogNameError": "there is no such database",
    "InsufficientPrivilegeError": "its role lacks a right",
    "InvalidPasswordError": "user or password is wrong",
    "InvalidAuthorizationSpecificationError": "user or password is wrong",
    "TooManyConnectionsError": "all its connections are taken",
    "ReadOnlySQLTransactionError": "it can only be read",
}
"""What common errors of Postgres mean, by their names in its driver."""


class Health(StrEnum):
    """How something is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@attrs.frozen
class Finding:
    """One thing that was looked at.

    Attributes:
        system: Such as ``Postgres``.
        check: What was looked at, in one or two words.
        message: How it is, and what to do if that is not well.
    """

    health: Health
    system: str
    check: str
    message: str


def ok(system: str, check: str, message: str) -> Finding:
    """Say that all is well."""
    return Finding(Health.OK, system, check, message)


def warning(system: str, check: str, message: str) -> Finding:
    """Say that something is not as it should be, though a server would start."""
    return Finding(Health.WARNING, system, check, message)


def error(system: str, check: str, message: str) -> Finding:
    """Say that a server would not start, or not do its work."""
    return Finding(Health.ERROR, system, check, message)


def shown(url: str) -> str:
    """Return *url* without user, password and parameters; nothing of one that may have them elsewhere."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "the address given"
    if not parts.scheme or ("@" in url and "@" not in parts.netloc):
        return "the address given"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def reason(failure: Exception) -> str:
    """Say why *failure* came about, in words that are none of a driver's messages: those may repeat a password."""
    *_, deepest = _chain(failure)
    if isinstance(deepest, socket.gaierror):
        return "the name of its host is not known"
    if isinstance(deepest, TimeoutError):
        return "no answer in time"
    if isinstance(deepest, OSError):
        return os.strerror(deepest.errno).lower() if deepest.errno else "no connection"
    name = _code_of(deepest) or type(deepest).__name__
    return _IN_OUR_WORDS.get(name, name)


def _chain(failure: Exception) -> Iterator[Exception]:
    cause: BaseException | None = failure
    while isinstance(cause, Exception):  # below a time-out there is the cancellation that it was
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _code_of(failure: BaseException) -> str | None:
    """Return the name that the system itself has for *failure*, if its driver tells it."""
    for attribute in ("name", "code"):
        code = getattr(failure, attribute, None)
        if isinstance(code, str) and _CODE.fullmatch(code):
            return code
    return None
