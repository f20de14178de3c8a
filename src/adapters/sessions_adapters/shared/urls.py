"""What makes a text the URL of a system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

from sessions_core.errors import InvalidError

Validator = Callable[[Any, Any, str], None]


def url_of(system: str, *schemes: str) -> Validator:
    """Return a validator of attrs that takes URLs which begin with one of *schemes*, and say clearly where *system* is.

    What it raises, an InvalidError, has nothing of the URL in it: it may be a password that is in the wrong place.
    """

    def check(_: Any, __: Any, url: str) -> None:
        if not url.startswith(schemes):
            raise InvalidError(f"URL of {system}", f"must begin with {_one_of(schemes)}")
        if not _is_clear(url):
            what = "cannot be read; in user and password write # as %23, / as %2F, ? as %3F, @ as %40 and : as %3A"
            raise InvalidError(f"URL of {system}", what)

    return check


def _one_of(schemes: tuple[str, ...]) -> str:
    return schemes[0] if len(schemes) == 1 else f"one of {', '.join(schemes)}"


def _is_clear(url: str) -> bool:
    """Tell whether everybody who splits *url* gets the same: its hosts, their ports, and no user outside of the host's part."""
    try:
        parts = urlsplit(url)
        hosts = parts.netloc.rpartition("@")[2].split(",")
        for host in hosts:  # Postgres takes several
            urlsplit(f"//{host}").port  # noqa: B018 - raises ValueError where it is no number
    except ValueError:
        return False
    return not parts.fragment and not _hides_a_user(parts)


def _hides_a_user(parts: SplitResult) -> bool:
    return "@" in parts.path and "@" not in parts.netloc
