"""What is measured side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

BARE: Final = "bare"
SYNCED: Final = "bare + synced commit"
INSERT: Final = "asyncpg insert"
S2_APPEND: Final = "s2-sdk append"
SERVER: Final = "server"


def in_turn(targets: Sequence[T], number: int) -> list[T]:
    """Let another target begin in every round."""
    first = number % len(targets)
    return [*targets[first:], *targets[:first]]
