"""What protects root keys. Nothing is made or needed before the first one is kept."""

from __future__ import annotations

from typing import Final

import attrs

from sessions_adapters.profiles.backends import KEY_NAME, Backends, setting
from sessions_core.errors import IncompatibleStoreError, InvalidError
from sessions_core.ports.environment_store import Cipher

REMEDY: Final = (
    "the root keys in the database can be read with that key alone: restore the one from the backup. If there is none, "
    "they are lost, and `sessions env rotate-key` cannot help by itself: delete them with the SQL statement "
    '"delete from access_key where sealed is not null", then make new ones with `sessions env rotate-key`'
)


@attrs.define
class LateCipher(Cipher):
    """Gets its key when it is first used: makes one to encrypt with, but never one to decrypt with."""

    _backends: Backends = attrs.field(repr=False)
    _made: Cipher | None = attrs.field(init=False, default=None, repr=False)

    def encrypt(self, plain: bytes) -> bytes:
        self._made = self._made or _first(self._backends)
        return self._made.encrypt(plain)

    def decrypt(self, sealed: bytes) -> bytes:
        self._made = self._made or find_cipher(self._backends, sealed)
        return self._made.decrypt(sealed)


def find_cipher(backends: Backends, sealed: bytes | None) -> Cipher:
    """Return what protects root keys.

    Args:
        backends: Have the key, or say where it lies. While nothing is encrypted it is made when it is needed.
        sealed: A root key as it is stored, on which the encryption key is tried.

    Raises:
        IncompatibleStoreError: The key is missing, or not the one that was used before.
        InvalidError: It is not a key.
        ImportError: There is a key, but not the extra that uses it.
    """
    if backends.encryption_key is not None:
        return _given(backends.encryption_key, sealed)
    if sealed is None:
        return LateCipher(backends)
    return _of_file(backends, sealed)


def _given(key: str, sealed: bytes | None) -> Cipher:
    from sessions_adapters.fernet import FernetCipher

    try:
        cipher = FernetCipher(key.encode())
    except InvalidError as error:
        raise InvalidError(setting("encryption_key"), error.reason) from None
    return _tried(cipher, sealed, "the encryption key")


def _first(backends: Backends) -> Cipher:
    """Return the cipher of the key in the directory, which is made if there is none."""
    from sessions_adapters.fernet import FernetCipher, load_or_create_key

    if backends.data is None:
        raise InvalidError(setting("encryption_key"), "must be set before a root key can be kept")
    backends.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return FernetCipher(load_or_create_key(backends.data / KEY_NAME))


def _of_file(backends: Backends, sealed: bytes) -> Cipher:
    from sessions_adapters.fernet import FernetCipher, load_key

    if backends.data is None:
        raise InvalidError(setting("encryption_key"), "must be set: there are root keys that it protects")
    path = backends.data / KEY_NAME
    if not path.exists():
        unset = f" and {setting('encryption_key')} is not set" if backends.uses_postgres else ""
        raise IncompatibleStoreError(f"{path} is missing{unset}; {REMEDY}")
    return _tried(FernetCipher(load_key(path)), sealed, str(path))


def _tried(cipher: Cipher, sealed: bytes | None, name: str) -> Cipher:
    try:
        if sealed is not None:
            cipher.decrypt(sealed)
    except IncompatibleStoreError as exc:
        raise IncompatibleStoreError(f"{name} is not the key that was used before; {REMEDY}") from exc
    return cipher
