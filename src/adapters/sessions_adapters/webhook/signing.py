"""Signatures of the Standard Webhooks specification, symmetric scheme ``v1``."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "whsec_"
LEAST_BYTES: Final = 24
MOST_BYTES: Final = 64


def parse_secret(text: str) -> bytes:
    """Read a secret as it is written: ``whsec_`` and 24 to 64 bytes in base64.

    Raises:
        ValueError: It is none.
    """
    if not text.startswith(PREFIX):
        raise ValueError
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if not LEAST_BYTES <= len(secret) <= MOST_BYTES:
        raise ValueError
    return secret


def sign(message_id: str, timestamp: int, body: bytes, secrets: Iterable[bytes]) -> str:
    """Return the value of ``webhook-signature``: one signature for each secret, so that a receiver may know any of them.

    Neither the id nor the timestamp may contain a full stop, which separates what is signed.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(hmac.digest(secret, content, 'sha256')).decode()}" for secret in secrets)
