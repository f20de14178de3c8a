"""Taking errors out of the groups that task groups put them into."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import cast


def unwrap(error: BaseException) -> BaseException:
    """Return the one error inside nested groups of one; *error* itself if it is no such group."""
    inner = _inner(error)
    return unwrap(inner[0]) if len(inner) == 1 else error


def _inner(error: BaseException) -> tuple[BaseException, ...]:
    """Return the errors of a group; nothing for an error that is none."""
    return cast("tuple[BaseException, ...]", error.exceptions) if isinstance(error, BaseExceptionGroup) else ()


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Give the errors inside nested groups; *error* itself if it is no group."""
    inner = _inner(error)
    if not inner:
        yield error
    for one in inner:
        yield from leaves(one)


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
            behind += [other for other in (one.__cause__, one.__context__, *_inner(one)) if other is not None]
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
