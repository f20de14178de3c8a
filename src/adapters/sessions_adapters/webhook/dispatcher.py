"""The dispatcher: posts run requests to an engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import attrs

from sessions_adapters.webhook.config import WebhookConfig
from sessions_adapters.webhook.requests import cancellation, run_request
from sessions_adapters.webhook.rests import Rests
from sessions_adapters.webhook.signing import sign
from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord
from sessions_core.errors import DispatcherUnavailableError
from sessions_core.ports.clock import Clock
from sessions_core.ports.run_dispatcher import RunDispatcher

logger = logging.getLogger("sessions.webhook")
logger.addHandler(logging.NullHandler())

ENGINE: Final = "engine behind webhook_url"
OVERLOADED: Final = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses that speak of the engine as a whole, and not of one run."""
IssueToken = Callable[[RunRecord], Awaitable[str | None]]


@attrs.define(eq=False)
class WebhookRunDispatcher(RunDispatcher):
    """Hands each run over with a POST that the engine has to answer with 2xx once it has the run for good.

    The id of the message is that of the run, so an engine that gets it twice knows it. Nothing is kept here: a run that the
    engine has not taken stays undispatched, and the sweep comes back with it.
    """

    _config: WebhookConfig
    _http: aiohttp.ClientSession
    _issue_token: IssueToken
    _clock: Clock
    _rests: Rests = attrs.field(init=False, factory=Rests)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, config: WebhookConfig, issue_token: IssueToken, clock: Clock
    ) -> AsyncGenerator[WebhookRunDispatcher]:
        """Open a dispatcher. Nothing is sent yet.

        Args:
            config: Says where the engine is.
            issue_token: Returns the token that a run's request carries.
            clock: Says when a request is made; engines refuse those that are not of just now.
        """
        connector = aiohttp.TCPConnector(limit=config.connections)
        timeout = aiohttp.ClientTimeout(total=config.timeout.total_seconds())
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as http:
            yield cls(config, http, issue_token, clock)

    async def dispatch(self, run: RunRecord) -> None:
        """Post a run request.

        Raises:
            DispatcherUnavailableError: The engine did not take it, or has failed a moment ago and is left alone.
        """
        if not self._rests.may_try(run.id, _monotonic(), self._config.timeout.total_seconds()):
            raise DispatcherUnavailableError(ENGINE, was_asked=False)
        body = run_request(run, await self._issue_token(run), self._clock.now())
        await self._post(run.id, run.id, body)

    async def cancel(self, run_id: RunId) -> None:
        """Post a cancellation.

        Raises:
            DispatcherUnavailableError: The engine gave no answer, or another one than 2xx.
        """
        await self._post(run_id, f"{run_id}-cancel", cancellation(run_id, self._clock.now()))

    async def _post(self, run_id: RunId, message_id: str, body: bytes) -> None:
        try:
            status, wait = await self._send(message_id, body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._rests.engine_failed(run_id, _monotonic())
            logger.warning("engine gave no answer", extra={"run_id": run_id, "reason": type(error).__name__})
            raise DispatcherUnavailableError(ENGINE) from error
        if 200 <= status < 300:
            self._rests.succeeded(run_id)
            return
        if status in OVERLOADED:
            self._rests.engine_failed(run_id, _monotonic(), wait)
        else:
            self._rests.run_refused(run_id, _monotonic(), wait)
        logger.warning("engine refused", extra={"run_id": run_id, "status": status})
        raise DispatcherUnavailableError(ENGINE)

    async def _send(self, message_id: str, body: bytes) -> tuple[int, float]:
        """Send a message; return the status of its answer, and how many seconds that asks us to wait. Nobody reads its body."""
        timestamp = int(self._clock.now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "sessions",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(message_id, timestamp, body, self._config.secrets),
        }
        # A redirect is an answer like any other: it might lead the token to somebody else.
        async with self._http.post(self._config.url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status, _seconds(response.headers.get("Retry-After", ""))


def _seconds(text: str) -> float:
    """Read a ``Retry-After``. One that is a date counts as none: it says nothing without the engine's clock."""
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
