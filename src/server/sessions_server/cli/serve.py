"""``sessions serve``: its options. What they start is imported when it is needed, so that other commands start quickly."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import attrs

from sessions_server.cli.keys import parse_root_key
from sessions_server.cli.limit_options import add_limit_options, limits_given
from sessions_server.cli.parsers import add_subparser
from sessions_server.config import DEFAULT_AGENTS, Config

OPTIONS: Final = ("host", "port", "processes", "data", "agents", "dev_key", "demo", "tls_cert", "tls_key")
DESCRIPTION: Final = "Serve sessions over HTTP and run their agents in this process."
EXAMPLES: Final = """examples:
  sessions serve
  sessions serve --port 9000 --data /var/lib/sessions --agents my_service.agents:agents
  sessions serve --dev-key tr_dev_local0000000000000000000

Every option can also be set as SESSIONS_<NAME>; see the configuration reference.
"""


def add_parser(commands: Any) -> None:
    """Add ``serve`` to the command line."""
    parser = add_subparser(commands, "serve", summary="run the server", examples=EXAMPLES, description=DESCRIPTION)
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on; 0 takes a free one (default: 8787)")
    parser.add_argument("--processes", metavar="N", type=int, help="server processes that share the port (default: 1)")
    parser.add_argument("--data", type=Path, help="directory for everything that is kept (default: ./data)")
    parser.add_argument("--agents", help=f"module:attribute of the agents (default: {DEFAULT_AGENTS})")
    parser.add_argument("--dev-key", help="root key of the first environment, when it is made")
    parser.add_argument("--tls-cert", type=Path, help="PEM file with a certificate: speak TLS")
    parser.add_argument("--tls-key", type=Path, help="PEM file with its key, if that is not in the same file")
    parser.add_argument(
        "--demo",
        action="store_true",
        default=None,
        help="show the chat page to everybody who reaches the server, not only to people on this machine",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line, here and in the log (SESSIONS_LOG_JSON)"
    )
    add_limit_options(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return 0 after a clean end."""
    from sessions_server.cli.serving import serve, serve_in_processes

    given = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    given |= limits_given(arguments)
    if arguments.json:
        given["log_json"] = True
    config = attrs.evolve(Config.load(), **given)
    if config.dev_key is not None:
        parse_root_key(config.dev_key, "--dev-key")
    if config.processes > 1:
        return serve_in_processes(config, as_json=arguments.json)
    serve(config, as_json=arguments.json)
    return 0
