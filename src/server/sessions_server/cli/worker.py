"""``sessions worker``: its options. What they start is imported when it is needed, so that other commands start quickly."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import attrs

from sessions_server.cli.parsers import add_subparser
from sessions_server.config import DEFAULT_AGENTS, Config

OPTIONS: Final = ("agents", "concurrency", "worker_version", "data")
DESCRIPTION: Final = """Carry out runs of agents until SIGTERM, without serving HTTP.

Any number of workers, on any number of machines, share the work. One that dies is noticed within SESSIONS_STALL seconds, and
its sessions go on elsewhere. At SIGTERM no more runs are taken, idle ones leave, and busy ones have SESSIONS_DRAIN seconds.
"""
EXAMPLES: Final = """examples:
  sessions worker --agents my_service.agents:agents
  sessions worker --agents my_service.agents:agents --concurrency 50 --queue slow --queue default
  sessions worker --agents my_service.agents:agents --worker-version 2026.11.2

Set SESSIONS_PROFILE, SESSIONS_DATABASE_URL and SESSIONS_ENCRYPTION_KEY as for the servers.
"""


def add_parser(commands: Any) -> None:
    """Add ``worker`` to the command line."""
    summary = "carry out runs of agents, beside the servers"
    parser = add_subparser(commands, "worker", summary=summary, examples=EXAMPLES, description=DESCRIPTION)
    parser.add_argument("--agents", help=f"module:attribute of the agents (default: {DEFAULT_AGENTS})")
    parser.add_argument(
        "--concurrency", type=int, metavar="N", help="how many runs are carried out at once (default: 200)"
    )
    parser.add_argument(
        "--queue", action="append", metavar="NAME", help="take only runs of this queue; may be repeated (default: all)"
    )
    parser.add_argument(
        "--worker-version",
        metavar="VERSION",
        help="of the agents: takes runs locked to it, and before older workers all that are locked to none",
    )
    parser.add_argument(
        "--data", type=Path, help="directory of the encryption key, if that is not set (default: ./data)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line, here and in the log (SESSIONS_LOG_JSON)"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Work until SIGTERM or SIGINT; return 0 after a clean end."""
    from sessions_server.cli.working import work

    given = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    if arguments.queue:
        given["queues"] = ",".join(arguments.queue)
    if arguments.json:
        given["log_json"] = True
    work(attrs.evolve(Config.load(), **given), as_json=arguments.json)
    return 0
