"""Taking errors out of the groups that task groups put them into."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import cast


def unwrap(error: BaseException) -> BaseException:
    """Return the one error inside nested groups of one; *error* itself if it is no such group."""
    inner = _only(error)
    return error if inner is None else unwrap(inner)


def _only(error: BaseException) -> BaseException | None:
    if not isinstance(error, BaseExceptionGroup):
        return None
    inner = cast("tuple[BaseException, ...]", error.exceptions)
    return inner[0] if len(inner) == 1 else None


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Give the errors inside nested groups; *error* itself if it is no group."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in cast("tuple[BaseException, ...]", error.exceptions):
        yield from leaves(inner)


def consists_of(error: BaseException, only: BaseException | None) -> bool:
    """Tell whether *error* is *only*, or a group in which there is nothing else."""
    return all(leaf is only for leaf in leaves(error))


def is_because_of(error: BaseException, kind: type[BaseException]) -> bool:
    """Tell whether every error inside *error* is of *kind*, or was raised while one of that kind was dealt with."""
    return all(_has_behind(leaf, kind) for leaf in leaves(error))


def _has_behind(error: BaseException, kind: type[BaseException]) -> bool:
    seen: set[int] = set()
    behind = [error]
    while behind:
        one = behind.pop()
        if isinstance(one, kind):
            return True
        if id(one) not in seen:
            seen.add(id(one))
            group = leaves(one) if isinstance(one, BaseExceptionGroup) else ()
            behind += [other for other in (one.__cause__, one.__context__, *group) if other is not None]
    return False


@contextmanager
def unwrapped() -> Generator[None]:
    """Let a single error leave the block as itself, so that callers can name it in ``except``."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = unwrap(group)
        if error is group:
            raise
        raise error from error.__cause__
