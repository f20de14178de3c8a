"""Reading what tasks have written, and saying it in a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from sessions_core.chat import Answer
from sessions_core.domain.json_values import as_object

LONGEST_SHOWN: Final = 12


@attrs.frozen(kw_only=True)
class CompletedTurn(Answer):
    """A turn that is over, as a reader sees it.

    Attributes:
        covered: The last ``in`` seq that is dealt with now.
        stopped: Whether the user's stop ended it.
    """

    covered: int
    stopped: bool

    def data(self, name: str) -> Any:
        """Return the value of the last ``data-<name>`` part.

        Raises:
            AssertionError: There is none.
        """
        found = [chunk.get("data") for chunk in self.chunks if chunk.get("type") == f"data-{name}"]
        assert found, f"the turn has no data-{name} part; it has: {list_values(self.chunks)}"
        return found[-1]


def is_wanted(value: Any, wanted: str | Callable[[Any], object] | None) -> bool:
    """Tell whether *value* is a chunk of the type *wanted*, or one for which that function is true. None wants everything."""
    if isinstance(wanted, str):
        return (as_object(value) or {}).get("type") == wanted
    return wanted is None or bool(wanted(value))


def list_values(values: Iterable[Any]) -> str:
    """List values in one line: types of chunks, with what matters of them, and everything else as it is."""
    shown = [_describe(value) for value in values]
    return ", ".join(shown if len(shown) <= LONGEST_SHOWN else [*shown[:LONGEST_SHOWN], f"… {len(shown)} in all"])


def _describe(value: Any) -> str:
    chunk = as_object(value)
    if chunk is None or "type" not in chunk:
        return repr(value)
    detail = next((chunk[name] for name in ("delta", "data", "errorText") if name in chunk), None)
    return str(chunk["type"]) if detail is None else f"{chunk['type']} {detail!r}"
