"""One server process from its start to its end: the HTTP server and, beside it, the runs of its agents."""

from __future__ import annotations

import asyncio
import gc
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sessions_adapters.profiles import WEBHOOK, find_tracers, open_sessions
from sessions_core import chat
from sessions_core.agents import Agents
from sessions_core.domain.environment import EnvironmentType
from sessions_core.errors import InvalidError, SessionsError
from sessions_core.facade import Sessions
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_server.app import HttpServer, build_server
from sessions_server.auth.tokens import SignedSessionTokens
from sessions_server.cli.backends import backends_of
from sessions_server.cli.keys import new_environment, new_root_key
from sessions_server.cli.loading import load_agents
from sessions_server.cli.processes import Family, Share, bind
from sessions_server.cli.replicating import replicating
from sessions_server.cli.signals import stop_on_signals
from sessions_server.cli.text import to_json
from sessions_server.cli.workload import settings_of, workload_of
from sessions_server.config import Config, ReplicationVariables
from sessions_server.observability.logs import EventLog, Observers, set_up_logging
from sessions_server.observability.metrics import Metrics
from sessions_server.observability.process_metrics import ProcessMetrics

YOUNG_OBJECTS: Final = 20_000
"""So many new objects that may hold others are there before Python looks for garbage in cycles."""


class UnaskedEndError(SessionsError):
    """A server has ended, though nobody asked it to and nothing has failed: something cancelled it from within."""

    @property
    def message(self) -> str:
        return "the server has ended although nobody asked it to; start it again, and please report its log"


def serve(config: Config, *, as_json: bool, share: Share | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        config: What to serve, and where.
        as_json: Print one JSON object per line instead of sentences.
        share: What this process has of a server of several processes.

    Raises:
        InvalidError: The agents cannot be loaded, or the address cannot be listened on.
        UnaskedEndError: It has ended by itself.
    """
    set_up_logging(config.log_level, as_json=config.log_json)
    asyncio.run(_serve(config, _agents_of(config), as_json=as_json, share=share))


def _agents_of(config: Config) -> Agents:
    """Return what runs here: nothing, where an engine of one's own carries runs out."""
    return chat.Agents() if backends_of(config).dispatcher == WEBHOOK else load_agents(config.agents)


def serve_in_processes(config: Config, *, as_json: bool) -> int:
    """Serve with several processes until SIGTERM or SIGINT; return 0 if all of them have ended cleanly.

    Raises:
        InvalidError: The profile keeps its data in one process, or the address cannot be listened on.
    """
    if not backends_of(config).uses_postgres:
        wanted = f"must be 1 with the profile {config.profile}, whose data has one process as its owner"
        raise InvalidError("--processes", f"{wanted}: choose postgres or scale")
    sockets = bind(config.host, config.port)
    with tempfile.TemporaryDirectory(prefix="sessions-") as folder:
        family = Family(
            lambda share: serve(config, as_json=as_json, share=share),
            sockets,
            config.processes,
            Path(folder),
            as_json,
        )
        return family.run()


async def _serve(config: Config, agents: Agents, *, as_json: bool, share: Share | None) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop, as_json=as_json, is_silent=share is not None)
    metrics = Metrics() if share is None else ProcessMetrics(share.folder, share.index)
    observer = Observers((metrics, EventLog(), *find_tracers()))
    async with (
        _taking_part(share, metrics, stop),
        replicating(config, ReplicationVariables.load(), observer) as replication,
        open_sessions(
            backends_of(config),
            agents=agents,
            observer=observer,
            settings=settings_of(config),
            session_tokens=SignedSessionTokens(config.session_token_lifetime, config.run_token_lifetime),
            workload=workload_of(config),
        ) as sessions,
    ):
        key = await _first_environment(sessions, config.dev_key)
        server = build_server(sessions, config, metrics=metrics, replication=replication)
        try:
            await _listen(server, config, share)
            if share is None or share.is_first:
                print(_welcome(server, key, agents, config, as_json=as_json), flush=True)
            if share is not None:
                share.ready()
            _collect_rarely()
            await stop.wait()
            await server.drain()
        finally:
            await server.close()
    if not stop.is_set():  # a block above has taken a cancellation for its own
        raise UnaskedEndError


def _collect_rarely() -> None:
    """Let Python's search for cycles pass over what stays to the end, and come less often.

    At its default of 700 objects it finds the requests under way, again and again, and no garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


@asynccontextmanager
async def _taking_part(share: Share | None, metrics: Metrics, stop: asyncio.Event) -> AsyncIterator[None]:
    """Do inside the block what a process of several owes the others: show its metrics, and stop if its parent is gone."""
    if share is None or not isinstance(metrics, ProcessMetrics):
        yield
        return
    loop, parent = asyncio.get_running_loop(), share.parent

    def stop_once() -> None:
        loop.remove_reader(parent)
        stop.set()

    loop.add_reader(parent, stop_once)
    publishing = asyncio.create_task(metrics.publish_forever())
    try:
        yield
    finally:
        publishing.cancel()


async def _listen(server: HttpServer, config: Config, share: Share | None) -> None:
    try:
        await server.listen(config.host, config.port, () if share is None else share.sockets)
    except OSError as error:
        raise InvalidError("--host/--port", f"cannot be listened on: {error.strerror}; choose another one") from error


async def _first_environment(sessions: Sessions, dev_key: str | None) -> str | None:
    """Make a development environment if there is none; return its key, or None if one was there.

    Of any number of processes that do this at once on one database, exactly one makes it.
    """
    while not (made := await sessions.environments.list_all()):
        async with sessions.ports.leader.hold("first environment") as scope:
            with scope:
                if (key := await _make_first(sessions.environments, dev_key)) is not None:
                    return key
    await sessions.environments.find_root_keys(made[0].id)  # raises if our encryption key is another than its maker's
    return None


async def _make_first(environments: EnvironmentStore, dev_key: str | None) -> str | None:
    if await environments.list_all():
        return None
    key = dev_key or new_root_key(EnvironmentType.DEVELOPMENT)
    await environments.create(new_environment(EnvironmentType.DEVELOPMENT), key)
    return key


def _welcome(server: HttpServer, key: str | None, agents: Agents, config: Config, *, as_json: bool) -> str:
    address = server.address
    if as_json:
        return to_json({"event": "listening", "address": address, "agents": agents.names, "key": key})
    lines = [f"sessions is listening on {address}", f"agents: {', '.join(agents.names) or _nobody(config)}"]
    if server.context.page.is_served and agents.names:
        lines.append(f"talk to them in the browser: {address}/")
    if key is None:
        if config.dev_key is not None:
            lines.append("--dev-key was ignored: there are environments already")
        lines.append(f"to see the root keys: {_show_keys(config)}")
    else:
        lines.append(f"development key: {key}")
    return "\n".join([*lines, *_try(address, key, agents)])


def _nobody(config: Config) -> str:
    return "none; an engine elsewhere carries runs out" if config.dispatcher == WEBHOOK else "none"


def _show_keys(config: Config) -> str:
    data = [] if config.data == Config().data else ["--data", str(config.data)]
    return shlex.join([*_program(), "env", "list", "--show-keys", *data])


def _program() -> list[str]:
    """Return the words with which this program was started."""
    started = sys.argv[0]
    return [sys.executable, "-m", "sessions_server"] if Path(started).name == "__main__.py" else [started]


def _try(address: str, key: str | None, agents: Agents) -> list[str]:
    """Return the lines of a first message and its answer, to be pasted into another terminal; none if nobody answers."""
    if not agents.names:
        return []
    program, task = shlex.join(_program()), next(iter(agents.names))
    return [
        "try, in another terminal" + ("" if key else ", with one of them in place of the dots") + ":",
        f"  export SESSIONS_URL={address} SESSIONS_KEY={key or '...'}",
        f"  {program} send hello 'slow and steady' --create {shlex.quote(task)} --wait",
        f"  {program} tail hello",
    ]
