"""Encryption keys in a file of their own, readable by its owner only: one a line, the current one first."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sessions_adapters.fernet.cipher import FernetCipher
from sessions_core.errors import IncompatibleStoreError, InvalidError

_PRIVATE: Final = 0o600
_OTHERS: Final = 0o077
_LARGEST: Final = 65_536


def load_or_create_keys(path: Path) -> bytes:
    """Return the keys in the file *path*; if there is none, make it with one key first, with mode 0600.

    Of any number of processes that do this at once, all get the same key.

    Raises:
        IncompatibleStoreError: Other users may read or write the file, or it holds no key, or cannot be read or made.
    """
    with _named(path, "cannot be read or made"):
        if not path.exists():
            _create(path)
        return _load(path)


def load_keys(path: Path) -> bytes:
    """Return the keys in the file *path*, as :class:`~sessions_adapters.fernet.FernetCipher` takes them.

    Raises:
        IncompatibleStoreError: Other users may read or write the file, or it holds no key, or cannot be read.
    """
    with _named(path, "cannot be read"):
        return _load(path)


def add_key(path: Path) -> None:
    """Put a fresh key before those in the file *path*, which stay; it is on disk when this returns.

    Of any number of processes that do this at once, each adds one.

    Raises:
        IncompatibleStoreError: As for :func:`load_or_create_keys`.
    """
    with _named(path, "cannot be read or made"):
        if not path.exists():
            _create(path)
        with _locked(path.parent) as folder:
            keys = FernetCipher.generate_key() + b"\n" + _load(path)
            with _drafted(path, keys) as draft:
                draft.replace(path)
            os.fsync(folder)


@contextmanager
def _named(path: Path, problem: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise IncompatibleStoreError(
            f"{path} {problem} ({exc.strerror}); it is the file of the encryption key"
        ) from exc


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Let one process at a time into the block; give the folder's descriptor."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _create(path: Path) -> None:
    """Let a complete file with one key appear at once, unless somebody else's is there already."""
    with _drafted(path, FernetCipher.generate_key()) as draft, suppress(FileExistsError):
        os.link(draft, path)


@contextmanager
def _drafted(path: Path, keys: bytes) -> Iterator[Path]:
    """Give a private file beside *path* that holds *keys*, on disk; what is left of it afterwards is removed."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(keys + b"\n")
            file.flush()
            os.fsync(descriptor)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _load(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        keys = file.read(_LARGEST).strip()
    if os.name == "posix" and mode & _OTHERS:
        raise IncompatibleStoreError(
            f"{path} holds an encryption key, but other users can get at it (mode {mode:04o}); "
            f"run chmod 600 {path} and consider the key known"
        )
    try:
        FernetCipher(keys)
    except InvalidError:
        raise IncompatibleStoreError(
            f"{path} holds no encryption key; restore the file, or remove it if no root keys were stored with it"
        ) from None
    return keys
