"""Finding out whether an engine is there."""

from __future__ import annotations

from urllib.parse import urlsplit

import anyio

from sessions_adapters.webhook.config import WebhookConfig
from sessions_core.errors import DispatcherUnavailableError


async def reach(config: WebhookConfig) -> None:
    """Connect to the engine's address and send nothing.

    Raises:
        DispatcherUnavailableError: Nobody takes connections there.
    """
    parts = urlsplit(config.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with await anyio.connect_tcp(parts.hostname or "", port):
            pass
    except OSError as error:
        raise DispatcherUnavailableError from error
