"""The cipher."""

from __future__ import annotations

import attrs

from sessions_core.errors import IncompatibleStoreError, InvalidError, MissingExtraError
from sessions_core.ports.environment_store import Cipher

try:
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet
except ImportError as exc:
    raise MissingExtraError("Encrypting root keys", "cryptography", "keys") from exc


def _fernet(keys: bytes | str) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in keys.split()])
    except ValueError:  # not kept as the cause: it may show the key
        raise InvalidError("encryption key", "must be 32 bytes in URL-safe base64") from None


@attrs.define
class FernetCipher(Cipher):
    """Encrypts with one key, and decrypts what was encrypted with it or with an older one.

    It is made of the keys with white space between them, the current one first.

    Raises:
        InvalidError: There is none, or one is not of those that :meth:`generate_key` makes.
    """

    _fernet: MultiFernet = attrs.field(converter=_fernet, repr=False, alias="keys")

    @staticmethod
    def generate_key() -> bytes:
        """Return a fresh key: 32 random bytes in URL-safe base64."""
        return Fernet.generate_key()

    def encrypt(self, plain: bytes) -> bytes:
        return self._fernet.encrypt(plain)

    def decrypt(self, sealed: bytes) -> bytes:
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as exc:
            raise IncompatibleStoreError(
                "A stored secret was encrypted with another encryption key, or is damaged; "
                "start with the key that was used when it was stored"
            ) from exc
