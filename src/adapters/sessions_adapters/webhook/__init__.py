"""Runs handed over to an engine of one's own: a signed POST to a URL, after the Standard Webhooks specification.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. The engine answers 2xx once it has
the run for good, and carries it out over HTTP, with an epoch. Runs on asyncio only.
"""

from __future__ import annotations

from sessions_core.errors import MissingExtraError

try:
    import aiohttp as _aiohttp
except ImportError as exc:
    raise MissingExtraError("The webhook dispatcher", "aiohttp", "webhook") from exc

from sessions_adapters.webhook.config import WebhookConfig
from sessions_adapters.webhook.dispatcher import WebhookRunDispatcher
from sessions_adapters.webhook.inspection import reach

__all__ = ["WebhookConfig", "WebhookRunDispatcher", "reach"]

_ = _aiohttp
