"""What carries runs out, if not the process that dispatches them. Each is imported when it is opened."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from typing import Protocol

import attrs

from sessions_adapters.local_runs import LocalRunDispatcher
from sessions_adapters.profiles.backends import PROCRASTINATE, WEBHOOK, Backends
from sessions_core.facade import Ports
from sessions_core.ports.run_dispatcher import RunDispatcher
from sessions_core.services.carrier import Execute
from sessions_core.services.token_issuer import TokenIssuer


@attrs.frozen(kw_only=True)
class Workload:
    """Which runs this process takes, of those that wait for a worker, and how many.

    Attributes:
        queues: Only runs whose ``queue`` is one of these; None takes those of all queues.
        version: Of the agents here. A run with ``lockToVersion`` goes only to a process of that version; any other one to the
            newest version that has a living process for it.
        concurrency: How many runs are carried out at once.
    """

    queues: tuple[str, ...] | None = None
    version: str | None = None
    concurrency: int = 200


class ServedDispatcher(RunDispatcher, Protocol):
    """A dispatcher with a worker in this process at its other end."""

    @abstractmethod
    def serve(
        self, execute: Execute, *, drain: Callable[[], None], patience: timedelta
    ) -> AbstractAsyncContextManager[None]:
        """Carry runs out inside the block; at its end call *drain*, and cancel those still busy after *patience*."""


async def open_worker(
    stack: AsyncExitStack, backends: Backends, tasks: tuple[str, ...], load: Workload, stall: timedelta
) -> ServedDispatcher:
    """Open the dispatcher whose runs may be carried out here, for as long as *stack* lives.

    Args:
        stack: Closes it.
        backends: Say which one that is; the process's own if it is not Procrastinate.
        tasks: What is known here.
        load: What is taken.
        stall: A process without a sign of life for so long is dead.
    """
    if backends.dispatcher != PROCRASTINATE:
        return LocalRunDispatcher()
    config = backends.procrastinate()
    from sessions_adapters import procrastinate

    worker = procrastinate.WorkerConfig(
        tasks=tasks, queues=load.queues, version=load.version, concurrency=load.concurrency, stall=stall
    )
    return await stack.enter_async_context(procrastinate.open_dispatcher(config, worker))


async def open_dispatcher(stack: AsyncExitStack, backends: Backends, ports: Ports) -> Ports:
    """Open an engine elsewhere for as long as *stack* lives; return *ports* with it in place of what runs here."""
    if backends.dispatcher != WEBHOOK:
        return ports
    config = backends.webhook()
    from sessions_adapters import webhook

    issuer = TokenIssuer(
        session_tokens=ports.session_tokens,
        environments=ports.environments,
        clock=ports.clock,
        observer=ports.observer,
    )
    connecting = webhook.WebhookRunDispatcher.connect(config, issuer.issue_for_run, ports.clock)
    return attrs.evolve(ports, dispatcher=await stack.enter_async_context(connecting))
