"""Rights in words: an action, and what it is done to.

``read session chat`` is a right to one session, ``read sessions`` to all of them. Subjects are the names of rows in
:mod:`.oracle`. Nothing here parses a scope: what a scope gives its holder is written down beside it.
"""

from __future__ import annotations

from typing import Final

ACTIONS: Final = ("read", "write", "admin")
TYPES: Final = ("sessions", "tasks", "runs")

NOTHING: Final[frozenset[str]] = frozenset()
PASS_ON: Final = "pass on read session chat"
"""To mint a token that may read ``team:chat``; a key that has the session's other id in its scopes has other scopes."""


def rights(*words: str) -> frozenset[str]:
    """Return *words* as a set."""
    return frozenset(words)


def all_of(*actions: str) -> frozenset[str]:
    """Return the rights to do *actions* to everything."""
    return frozenset(f"{action} {kind}" for action in actions for kind in TYPES)


EVERYTHING: Final = all_of(*ACTIONS)
TALK: Final = rights("read session chat", "write session chat")
"""What a session token of ``team:chat`` is good for."""
CARRY_OUT: Final = rights("read run chat", "write run chat", "read session chat")
"""What the token of its run is good for."""
