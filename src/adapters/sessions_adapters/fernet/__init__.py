"""Encryption of small secrets at rest, with Fernet (AES-128-CBC and HMAC-SHA256) from ``cryptography``."""

from __future__ import annotations

from sessions_adapters.fernet.cipher import FernetCipher
from sessions_adapters.fernet.key_file import add_key, load_keys, load_or_create_keys

__all__ = ["FernetCipher", "add_key", "load_keys", "load_or_create_keys"]
