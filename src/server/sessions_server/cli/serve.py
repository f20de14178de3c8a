"""``sessions serve``: the server and, in the same process, the runs of its agents."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import signal
import sys
from pathlib import Path
from typing import Any, Final

import attrs

from sessions_adapters.profiles import open_sessions
from sessions_core.agents import Agents
from sessions_core.domain.environment import EnvironmentType
from sessions_core.errors import InvalidError
from sessions_core.facade import Sessions
from sessions_server.app import HttpServer, build_server
from sessions_server.cli.keys import new_environment, new_root_key
from sessions_server.config import Config
from sessions_server.logs import EventLog, Observers, set_up_logging
from sessions_server.metrics import Metrics

DEFAULT_AGENTS: Final = "sessions_server.bundled:agents"
EXAMPLES: Final = """examples:
  sessions serve
  sessions serve --port 9000 --data /var/lib/sessions --agents my_service.agents:agents
  sessions serve --dev-key tr_dev_local000000000000000000

Every option can also be set as SESSIONS_<NAME>; see the configuration reference.
"""


def add_parser(commands: Any) -> None:
    """Add ``serve`` to the command line."""
    parser = commands.add_parser(
        "serve",
        help="run the server",
        description="Serve sessions over HTTP and run their agents in this process.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on; 0 takes a free one (default: 8787)")
    parser.add_argument("--data", type=Path, help="directory for everything that is kept (default: ./data)")
    parser.add_argument("--agents", help=f"module:attribute of the agents (default: {DEFAULT_AGENTS})")
    parser.add_argument("--dev-key", help="root key of the first environment, when it is made")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return 0 after a clean end."""
    given = {name: value for name in ("host", "port", "data") if (value := getattr(arguments, name)) is not None}
    config = attrs.evolve(Config.load(), **given)
    set_up_logging(config)
    agents = load_agents(arguments.agents or DEFAULT_AGENTS)
    asyncio.run(_serve(config, agents, arguments.dev_key))
    return 0


def load_agents(path: str) -> Agents:
    """Import the agents named ``module:attribute``.

    Raises:
        InvalidError: There is no such module or attribute, or it is no ``Agents``.
    """
    module_name, _, attribute = path.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidError("--agents", f"names nothing that can be imported: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(found, Agents):
        raise InvalidError("--agents", f"names a {type(found).__name__}, not an Agents")
    return found


async def _serve(config: Config, agents: Agents, dev_key: str | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    observer = Observers((metrics, EventLog()))
    async with open_sessions(config.profile, data=config.data, agents=agents, observer=observer) as sessions:
        key = await _first_environment(sessions, dev_key)
        server = build_server(sessions, config, metrics=metrics)
        try:
            await _listen(server, config)
            _welcome(server.address, key, agents)
            await stop.wait()
            await server.drain()
        finally:
            await server.close()


async def _listen(server: HttpServer, config: Config) -> None:
    try:
        await server.listen(config.host, config.port)
    except OSError as error:
        raise InvalidError("--host/--port", f"cannot be listened on: {error.strerror}; choose another one") from error


async def _first_environment(sessions: Sessions, dev_key: str | None) -> str | None:
    """Make a development environment if there is none; return its key, or None if one was there."""
    if await sessions.environments.list_all():
        return None
    key = dev_key or new_root_key(EnvironmentType.DEVELOPMENT)
    await sessions.environments.create(new_environment(EnvironmentType.DEVELOPMENT), key)
    return key


def _welcome(address: str, key: str | None, agents: Agents) -> None:
    lines = [f"sessions is listening on {address}", f"agents: {', '.join(agents.names) or 'none'}"]
    if key is None:
        lines.append("root keys: `sessions env list --show-keys` shows them")
    else:
        lines += [f"development key: {key}", "try, in another terminal:"]
        lines += _try(address, key, next(iter(agents.names), "echo"))
    print("\n".join(lines), flush=True)


def _try(address: str, key: str, task: str) -> list[str]:
    """Return the lines of a first conversation, to be pasted into another terminal."""
    auth = f"-H 'Authorization: Bearer {key}'"
    session = {
        "type": "chat.agent",
        "externalId": "hello",
        "taskIdentifier": task,
        "triggerConfig": {"basePayload": {}},
    }
    said = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "slow and steady"}]}
    record = {"kind": "message", "payload": {"trigger": "submit-message", "message": said}}
    return [
        f"  curl -s {address}/api/v1/sessions {auth} -d '{json.dumps(session)}'",
        f"  curl -s {address}/realtime/v1/sessions/hello/in/append {auth} -d '{json.dumps(record)}'",
        f"  curl -sN {address}/realtime/v1/sessions/hello/out {auth}",
    ]
