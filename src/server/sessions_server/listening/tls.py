"""TLS on the server's own port."""

from __future__ import annotations

import ssl
from pathlib import Path

from sessions_core.errors import InvalidError
from sessions_server.listening.switch import ALPN


def server_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return what the server shows and offers, or None if it is to speak without TLS.

    Args:
        certificate: PEM file with the certificate and those up to its root.
        key: PEM file with its key, if it is not in the same file.

    Raises:
        InvalidError: They cannot be read, or do not belong together.
    """
    if certificate is None:
        if key is not None:
            raise InvalidError("--tls-key", "needs --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except OSError as error:
        raise InvalidError("--tls-cert/--tls-key", f"cannot be used: {error.strerror or error}") from error
    context.set_alpn_protocols(ALPN)
    return context


def _no_password() -> str:
    """Stand in for the prompt on the terminal that OpenSSL would show otherwise."""
    return ""
