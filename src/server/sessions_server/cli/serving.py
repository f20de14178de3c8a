"""One server process from its start to its end: the HTTP server and, beside it, the runs of its agents."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from pathlib import Path
from typing import Final

from sessions_adapters.profiles import open_sessions
from sessions_core.agents import Agents
from sessions_core.domain.environment import EnvironmentType
from sessions_core.errors import InvalidError
from sessions_core.facade import Sessions, Settings
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_server.app import HttpServer, build_server
from sessions_server.cli.backends import backends_of
from sessions_server.cli.keys import new_environment, new_root_key
from sessions_server.cli.loading import load_agents
from sessions_server.cli.text import to_json
from sessions_server.config import Config
from sessions_server.logs import EventLog, Observers, set_up_logging
from sessions_server.metrics import Metrics
from sessions_server.tokens import SignedSessionTokens

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def serve(config: Config, *, as_json: bool) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        config: What to serve, and where.
        as_json: Print one JSON object per line instead of sentences.

    Raises:
        InvalidError: The agents cannot be loaded, or the address cannot be listened on.
    """
    set_up_logging(config)
    asyncio.run(_serve(config, load_agents(config.agents), as_json=as_json))


async def _serve(config: Config, agents: Agents, *, as_json: bool) -> None:
    stop = asyncio.Event()
    _stop_on_signals(stop, as_json=as_json)
    metrics = Metrics()
    observer = Observers((metrics, EventLog()))
    settings = Settings(owns_data=True, drain=config.drain)
    async with open_sessions(
        backends_of(config),
        agents=agents,
        observer=observer,
        settings=settings,
        session_tokens=SignedSessionTokens(config.session_token_lifetime),
    ) as sessions:
        key = await _first_environment(sessions, config.dev_key)
        server = build_server(sessions, config, metrics=metrics)
        try:
            await _listen(server, config)
            print(_welcome(server, key, agents, config, as_json=as_json), flush=True)
            await stop.wait()
            await server.drain()
        finally:
            await server.close()


def _stop_on_signals(stop: asyncio.Event, *, as_json: bool) -> None:
    """Set *stop* at the first SIGTERM or SIGINT; a second one ends the process at once, as a crash would."""
    loop = asyncio.get_running_loop()

    def ask() -> None:
        stop.set()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        farewell = "sessions is stopping; a second signal ends it at once"
        print(to_json({"event": "stopping"}) if as_json else farewell, flush=True)

    for number in SIGNALS:
        loop.add_signal_handler(number, ask)


async def _listen(server: HttpServer, config: Config) -> None:
    try:
        await server.listen(config.host, config.port)
    except OSError as error:
        raise InvalidError("--host/--port", f"cannot be listened on: {error.strerror}; choose another one") from error


async def _first_environment(sessions: Sessions, dev_key: str | None) -> str | None:
    """Make a development environment if there is none; return its key, or None if one was there.

    Of any number of processes that do this at once on one database, exactly one makes it.
    """
    while not await sessions.environments.list_all():
        async with sessions.ports.leader.hold("first environment") as scope:
            with scope:
                return await _make_first(sessions.environments, dev_key)
    return None


async def _make_first(environments: EnvironmentStore, dev_key: str | None) -> str | None:
    if made := await environments.list_all():
        await environments.find_root_keys(made[0].id)  # raises if our encryption key is another than its maker's
        return None
    key = dev_key or new_root_key(EnvironmentType.DEVELOPMENT)
    await environments.create(new_environment(EnvironmentType.DEVELOPMENT), key)
    return key


def _welcome(server: HttpServer, key: str | None, agents: Agents, config: Config, *, as_json: bool) -> str:
    address = server.address
    if as_json:
        return to_json({"event": "listening", "address": address, "agents": agents.names, "key": key})
    lines = [f"sessions is listening on {address}", f"agents: {', '.join(agents.names) or 'none'}"]
    if server.context.page.is_served:
        lines.append(f"talk to them in the browser: {address}/")
    if key is None:
        if config.dev_key is not None:
            lines.append("--dev-key was ignored: there are environments already")
        lines.append(f"to see the root keys: {_show_keys(config)}")
    else:
        lines.append(f"development key: {key}")
    return "\n".join([*lines, *_try(address, key, agents)])


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
