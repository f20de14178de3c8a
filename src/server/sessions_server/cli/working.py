"""One worker process from its start to its end: the runs of its agents, and nothing else."""

from __future__ import annotations

import asyncio

from sessions_adapters.profiles import PROCRASTINATE, open_sessions
from sessions_core.agents import Agents
from sessions_core.errors import InvalidError
from sessions_server.auth.tokens import SignedSessionTokens
from sessions_server.cli.backends import backends_of
from sessions_server.cli.loading import load_agents
from sessions_server.cli.signals import stop_on_signals
from sessions_server.cli.text import to_json
from sessions_server.cli.workload import settings_of, workload_of
from sessions_server.config import Config, variable_of
from sessions_server.observability.logs import EventLog, set_up_logging


def work(config: Config, *, as_json: bool) -> None:
    """Carry out runs until SIGTERM or SIGINT.

    Args:
        config: Says which runs, and where they wait.
        as_json: Print one JSON object per line instead of sentences.

    Raises:
        InvalidError: The agents cannot be loaded, or runs do not wait for workers.
    """
    set_up_logging(config.log_level, as_json=config.log_json)
    agents = load_agents(config.agents)
    if not agents.names:
        raise InvalidError("--agents", "names agents without a single task, so there is nothing to do")
    asyncio.run(_work(config, agents, as_json=as_json))


async def _work(config: Config, agents: Agents, *, as_json: bool) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop, as_json=as_json)
    backends = backends_of(config)
    if backends.dispatcher != PROCRASTINATE:
        reason = (
            f"must be {PROCRASTINATE}, here and for the servers: with {backends.dispatcher} no run waits for a worker"
        )
        raise InvalidError(variable_of("dispatcher"), reason)
    async with open_sessions(
        backends,
        agents=agents,
        observer=EventLog(),
        settings=settings_of(config),
        session_tokens=SignedSessionTokens(config.session_token_lifetime, config.run_token_lifetime),
        workload=workload_of(config),
    ):
        print(_welcome(agents, config, as_json=as_json), flush=True)
        await stop.wait()


def _welcome(agents: Agents, config: Config, *, as_json: bool) -> str:
    if as_json:
        facts = {"agents": agents.names, "version": config.worker_version, "concurrency": config.concurrency}
        return to_json({"event": "working", **facts})
    version = "" if config.worker_version is None else f" of version {config.worker_version}"
    return f"sessions is working on runs of: {', '.join(agents.names)}{version}"
