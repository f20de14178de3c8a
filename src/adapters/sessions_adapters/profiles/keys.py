"""What protects root keys. Nothing is made or needed before the first one is kept.

There may be several encryption keys, in the setting or in the file: the first one encrypts, the others are those that were
first before it. So a key is replaced in three steps, none of which stops a server: put a new one first, encrypt all root
keys anew (``sessions env re-encrypt``), take the old one away.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs

from sessions_adapters.profiles.backends import KEY_NAME, Backends, setting
from sessions_core.errors import IncompatibleStoreError, InvalidError
from sessions_core.ports.environment_store import Cipher

REMEDY: Final = (
    "the root keys in the database can be read with that key alone: restore the one from the backup, after the new one if "
    "there is one, and run `sessions env re-encrypt`. If there is none, "
    "they are lost, and `sessions env rotate-key` cannot help by itself: delete them with the SQL statement "
    '"delete from access_key where sealed is not null", then make new ones with `sessions env rotate-key`'
)


@attrs.define
class FileCipher(Cipher):
    """Has its keys in a file, which is made with the first root key, and read again when it may have changed."""

    _backends: Backends = attrs.field(repr=False)
    _read: Cipher | None = attrs.field(init=False, default=None, repr=False)

    def encrypt(self, plain: bytes) -> bytes:
        return _first(self._backends).encrypt(plain)

    def decrypt(self, sealed: bytes) -> bytes:
        if self._read is not None:
            with suppress(IncompatibleStoreError):
                return self._read.decrypt(sealed)
        self._read = _of_file(self._backends, sealed)
        return self._read.decrypt(sealed)


def find_cipher(backends: Backends, sealed: Sequence[bytes]) -> Cipher:
    """Return what protects root keys.

    Args:
        backends: Have the key, or say where it lies. While nothing is encrypted it is made when it is needed.
        sealed: Root keys as they are stored, on which the encryption keys are tried.

    Raises:
        IncompatibleStoreError: The key is missing, or not the one that was used before.
        InvalidError: It is not a key.
        ImportError: There is a key, but not the extra that uses it.
    """
    if backends.encryption_key is not None:
        return _given(backends.encryption_key, sealed)
    cipher = FileCipher(backends)
    for secret in sealed:
        cipher.decrypt(secret)
    return cipher


def is_current(backends: Backends, sealed: Sequence[bytes]) -> bool:
    """Tell whether the first of several encryption keys opens *sealed*, so that the others are not needed any more.

    Raises:
        IncompatibleStoreError: The file of the key cannot be used.
    """
    from sessions_adapters.fernet import FernetCipher, load_keys

    keys = backends.encryption_key or load_keys(backends.directory / KEY_NAME).decode()
    current = FernetCipher(keys.split()[0])
    try:
        return all(current.decrypt(secret) for secret in sealed)
    except IncompatibleStoreError:
        return False


def add_encryption_key(backends: Backends) -> None:
    """Put a fresh encryption key before those in the file of *backends*. What runs on them notices when it needs it.

    Raises:
        InvalidError: The keys are not in a file.
        IncompatibleStoreError: It cannot be used.
    """
    if backends.encryption_key is not None:
        raise InvalidError(
            setting("encryption_key"), "is set: put a new key before the one in it, with a space between"
        )
    from sessions_adapters.fernet import add_key

    add_key(backends.directory / KEY_NAME)


def _given(keys: str, sealed: Sequence[bytes]) -> Cipher:
    from sessions_adapters.fernet import FernetCipher

    try:
        cipher = FernetCipher(keys)
    except InvalidError as error:
        raise InvalidError(setting("encryption_key"), error.reason) from None
    for secret in sealed:
        _try(cipher, secret, "the encryption key")
    return cipher


def _first(backends: Backends) -> Cipher:
    """Return the cipher of the keys in the directory, where one is made if there is none."""
    from sessions_adapters.fernet import FernetCipher, load_or_create_keys

    if backends.data is None:
        raise InvalidError(setting("encryption_key"), "must be set before a root key can be kept")
    backends.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return FernetCipher(load_or_create_keys(backends.data / KEY_NAME))


def _of_file(backends: Backends, sealed: bytes) -> Cipher:
    from sessions_adapters.fernet import FernetCipher, load_keys

    if backends.data is None:
        raise InvalidError(setting("encryption_key"), "must be set: there are root keys that it protects")
    path = backends.data / KEY_NAME
    if not path.exists():
        unset = f" and {setting('encryption_key')} is not set" if backends.uses_postgres else ""
        raise IncompatibleStoreError(f"{path} is missing{unset}; {REMEDY}")
    cipher = FernetCipher(load_keys(path))
    _try(cipher, sealed, str(path))
    return cipher


def _try(cipher: Cipher, sealed: bytes, name: str) -> None:
    try:
        cipher.decrypt(sealed)
    except IncompatibleStoreError as exc:
        raise IncompatibleStoreError(f"{name} is not the key that was used before; {REMEDY}") from exc
