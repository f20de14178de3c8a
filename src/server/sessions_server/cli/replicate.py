"""``sessions replicate``: its options. What they start is imported when it is needed, so that other commands start quickly."""

from __future__ import annotations

import argparse
from typing import Any, Final

import attrs

from sessions_server.cli.parsers import add_subparser
from sessions_server.config import LAST_PORT, Config, ReplicationVariables

DESCRIPTION: Final = """Keep the index in ClickHouse up to date with the sessions in Postgres, until SIGTERM.

Of any number of processes that do this one works and the others wait. What the sessions were before replication was first
started is filled in with --backfill, once, beside the process that replicates.
"""
EXAMPLES: Final = """examples:
  sessions replicate
  sessions replicate --port 9090         # with /healthz, /readyz and /metrics
  sessions replicate --backfill          # fill in older sessions; run it again to go on after an interruption

Set SESSIONS_PROFILE, SESSIONS_DATABASE_URL and SESSIONS_CLICKHOUSE_URL; all that can be set besides begins with
SESSION_REPLICATION_; see the configuration reference. `sessions serve` replicates, too, with SESSION_REPLICATION_ENABLED=1.
"""


def add_parser(commands: Any) -> None:
    """Add ``replicate`` to the command line."""
    summary = "keep the index in ClickHouse up to date"
    parser = add_subparser(commands, "replicate", summary=summary, examples=EXAMPLES, description=DESCRIPTION)
    parser.add_argument("--backfill", action="store_true", help="fill in sessions older than replication, and end")
    parser.add_argument("--host", default="127.0.0.1", help="address for --port (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=_port, help="answer /healthz, /readyz and /metrics there; 0 takes a free one (default: nowhere)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line, here and in the log (SESSIONS_LOG_JSON)"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Replicate until SIGTERM or SIGINT, or backfill; return 0 after a clean end, 130 after a backfill that was interrupted."""
    from sessions_server.cli import replicating

    config, given = Config.load(), ReplicationVariables.load()
    if arguments.json:
        config = attrs.evolve(config, log_json=True)
    if arguments.backfill:
        return replicating.backfill(config, given, as_json=arguments.json)
    replicating.replicate(config, given, arguments.host, arguments.port, as_json=arguments.json)
    return 0


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be 0 to {LAST_PORT}")
    return port
