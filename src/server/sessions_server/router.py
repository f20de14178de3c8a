"""From a path to a route, without regular expressions.

Paths are matched as they were sent: split at ``/`` first, then each parameter is percent-decoded exactly once, so an id
may hold anything, ``%2F`` included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

import attrs

from sessions_core.errors import InvalidError
from sessions_server.wire.values import MAX_NAME, check_text

_MALFORMED: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Routed(Protocol):
    """What a router needs to know of a route."""

    @property
    def method(self) -> str:
        """The HTTP method."""

    @property
    def path(self) -> str:
        """The path, with parameters as ``{name}`` segments."""


R = TypeVar("R", bound=Routed)


@attrs.define(eq=False)
class Node(Generic[R]):
    """A place in the tree of paths.

    Attributes:
        methods: The routes of exactly this path, by method.
        names: The names of the path's parameters, in order.
    """

    methods: dict[str, R] = attrs.field(factory=dict)
    names: tuple[str, ...] = ()
    _literal: dict[str, Node[R]] = attrs.field(factory=dict)
    _parameter: Node[R] | None = None

    def child(self, segment: str, values: list[str]) -> Node[R] | None:
        """Return the node below at *segment*, putting it on *values* if it is a parameter, which is never empty."""
        node = self._literal.get(segment)
        if node is None and segment and (node := self._parameter) is not None:
            values.append(segment)
        return node

    def grow(self, segment: str) -> Node[R]:
        """Return the node below for a segment of a route's path, made if need be."""
        if not segment.startswith("{"):
            return self._literal.setdefault(segment, Node())
        if self._parameter is None:
            self._parameter = Node()
        return self._parameter

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods that this path answers."""
        head = {"HEAD"} if "GET" in self.methods else set()
        return tuple(sorted({*self.methods, *head, "OPTIONS"}))


class Router(Generic[R]):
    """Finds routes."""

    def __init__(self, routes: Iterable[R]) -> None:
        self._root: Node[R] = Node()
        for route in routes:
            self._add(route)

    def find(self, raw_path: str) -> tuple[Node[R], list[str]] | None:
        """Return the node at *raw_path* with the raw values of its parameters, or None if no route has this path."""
        node: Node[R] | None = self._root
        values: list[str] = []
        for segment in raw_path.split("/")[1:]:
            node = node.child(segment, values) if node is not None else None
        return (node, values) if node is not None and node.methods else None

    def _add(self, route: R) -> None:
        node = self._root
        segments = route.path.split("/")[1:]
        for segment in segments:
            node = node.grow(segment)
        node.methods[route.method] = route
        node.names = tuple(segment[1:-1] for segment in segments if segment.startswith("{"))


@lru_cache(maxsize=8192)
def decode_segment(segment: str, name: str) -> str:
    """Percent-decode one parameter.

    Raises:
        InvalidError: Malformed, no UTF-8, too long, or with U+0000.
    """
    if "%" in segment or not segment.isascii():
        segment = _unquote(segment, name)
    return check_text(segment, name, MAX_NAME)


def _unquote(segment: str, name: str) -> str:
    if _MALFORMED.search(segment):
        raise InvalidError(name, "has a malformed percent escape")
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeError:
        raise InvalidError(name, "is not valid UTF-8") from None
