"""The encryption key in a file of its own, readable by its owner only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sessions_adapters.fernet.cipher import FernetCipher
from sessions_core.errors import IncompatibleStoreError, InvalidError

_PRIVATE = 0o600
_OTHERS = 0o077


def load_or_create_key(path: Path) -> bytes:
    """Return the key in the file *path*; if there is none, make it first, with mode 0600.

    Of any number of processes that do this at once, all get the same key.

    Raises:
        IncompatibleStoreError: Other users may read or write the file, or it holds no key, or cannot be read or made.
    """
    with _named(path, "cannot be read or made"):
        if not path.exists():
            _create(path, FernetCipher.generate_key())
        return _load(path)


def load_key(path: Path) -> bytes:
    """Return the key in the file *path*.

    Raises:
        IncompatibleStoreError: Other users may read or write the file, or it holds no key, or cannot be read.
    """
    with _named(path, "cannot be read"):
        return _load(path)


@contextmanager
def _named(path: Path, problem: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise IncompatibleStoreError(
            f"{path} {problem} ({exc.strerror}); it is the file of the encryption key"
        ) from exc


def _create(path: Path, key: bytes) -> None:
    """Let the complete file appear at once, unless somebody else's is there already."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key + b"\n")
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _load(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        key = file.read(1024).strip()
    if os.name == "posix" and mode & _OTHERS:
        raise IncompatibleStoreError(
            f"{path} holds an encryption key, but other users can get at it (mode {mode:04o}); "
            f"run chmod 600 {path} and consider the key known"
        )
    try:
        FernetCipher(key)
    except InvalidError:
        raise IncompatibleStoreError(
            f"{path} holds no encryption key; restore the file, or remove it if no root keys were stored with it"
        ) from None
    return key
