"""Encryption of small secrets at rest, with Fernet (AES-128-CBC and HMAC-SHA256) from ``cryptography``."""

from __future__ import annotations

from sessions_adapters.fernet.cipher import FernetCipher
from sessions_adapters.fernet.key_file import load_key, load_or_create_key

__all__ = ["FernetCipher", "load_key", "load_or_create_key"]
