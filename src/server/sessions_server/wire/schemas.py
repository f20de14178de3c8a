"""How the OpenAPI document describes values. Nothing here checks anything: that is the business of what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

NO_NUL: Final = r"^[^\u0000]*$"
"""What every text that is stored is like."""


@attrs.frozen(kw_only=True)
class Parameter:
    """A value with a name: in a path, a query string, a request's header or an answer's.

    Attributes:
        schema: What it may be.
        example: One that works, or None.
        is_required: Whether it is always there.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    example: Any = None
    is_required: bool = False

    def described(self) -> dict[str, Any]:
        """Return what the document says about it, wherever it stands."""
        said = {"description": self.description, "required": self.is_required, "schema": dict(self.schema)}
        if self.schema.get("type") == "array":
            said |= {"style": "form", "explode": False}
        return said if self.example is None else {**said, "example": self.example}


def whole(least: int, most: int) -> dict[str, Any]:
    """Describe a whole number."""
    return {"type": "integer", "minimum": least, "maximum": most}


def text(most: int | None = None, *, least: int = 0) -> dict[str, Any]:
    """Describe a text of so many characters that can be stored."""
    schema: dict[str, Any] = {"type": "string", "minLength": least, "pattern": NO_NUL}
    return schema if most is None else {**schema, "maxLength": most}


def listed(items: Mapping[str, Any], most: int | None = None) -> dict[str, Any]:
    """Describe a list; in a query string there are commas between its items."""
    schema: dict[str, Any] = {"type": "array", "items": dict(items)}
    return schema if most is None else {**schema, "maxItems": most}


def shown(*schemas: Mapping[str, Any], **more: Any) -> msgspec.Meta:
    """Let the document say more about a member of a body than its type does."""
    merged: dict[str, Any] = {}
    for schema in (*schemas, more):
        merged |= schema
    return msgspec.Meta(extra_json_schema=merged)
