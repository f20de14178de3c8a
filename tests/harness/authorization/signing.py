"""Tokens as anybody can make them who has a key, or thinks that he can do without: by hand, so that nothing refuses to."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_HASHES: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}


def signed(
    claims: Mapping[str, Any], key: str, *, algorithm: str = "HS256", says: str | None = None, **header: Any
) -> str:
    """Return a token with an HMAC, whose header perhaps says something else."""
    text = _head_and_body({"alg": says or algorithm, "typ": "JWT", **header}, claims)
    return f"{text}.{_encode(hmac.digest(key.encode(), text.encode(), _HASHES[algorithm]))}"


def unsigned(claims: Mapping[str, Any], says: str = "none") -> str:
    """Return a token without a signature."""
    return _head_and_body({"alg": says, "typ": "JWT"}, claims) + "."


def signed_with_rsa(claims: Mapping[str, Any]) -> str:
    """Return a token with a true RS256 signature, and the public key in its header."""
    text = _head_and_body({"alg": "RS256", "typ": "JWT", "jwk": {"kty": "RSA", "pem": public_key()}}, claims)
    return f"{text}.{_encode(_private_key().sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def public_key() -> str:
    """Return the public key that everybody knows."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return _private_key().public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@cache
def _private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


def _head_and_body(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    return ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
