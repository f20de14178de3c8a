"""The files of the chat page, as they are sent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

import attrs

INDEX: Final = "index.html"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@attrs.frozen
class PageFile:
    """A file of the page, as it is sent."""

    body: bytes
    content_type: str
    etag: str


@cache
def read_files() -> Mapping[str, PageFile]:
    """Read all files of the page, by name, once. What is not among them does not exist."""
    folder = files("sessions_server") / "page"
    found = sorted((entry for entry in folder.iterdir() if entry.is_file()), key=lambda entry: entry.name)
    return {entry.name: _as_sent(entry.name, entry.read_bytes()) for entry in found}


def _as_sent(name: str, body: bytes) -> PageFile:
    return PageFile(body, _TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
