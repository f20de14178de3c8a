"""What the commands that talk to a server share: their options, and a client made of them."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

from sessions_core.errors import InvalidError
from sessions_server.cli.parsers import add_subparser
from sessions_server.cli.remote import Remote
from sessions_server.cli.terminal import Terminal
from sessions_server.config import ClientConfig

Act = Callable[[Remote, Terminal, argparse.Namespace], Awaitable[int]]
Check = Callable[[argparse.Namespace], str | None]
Prepare = Callable[[argparse.Namespace], None]


def add_command(
    commands: Any,
    name: str,
    act: Act,
    *,
    summary: str,
    examples: str,
    check: Check = lambda _: None,
    prepare: Prepare = lambda _: None,
) -> argparse.ArgumentParser:
    """Add a command that talks to a server.

    Args:
        commands: The command line's subparsers.
        name: The word that chooses it.
        act: Does it; returns the exit code.
        summary: What it does.
        examples: Shown at the end of its help.
        check: Returns what is wrong with the arguments taken together, if anything is.
        prepare: Completes the arguments before there is an event loop, in which Ctrl-C would end no read.
    """
    parser = add_subparser(commands, name, summary=summary, examples=examples)
    server = parser.add_argument_group("server")
    server.add_argument("--url", help="address of the server (SESSIONS_URL; default: http://127.0.0.1:8787)")
    key = server.add_mutually_exclusive_group()
    key.add_argument(
        "--key", help="key or token to show to it (better SESSIONS_KEY: others on this machine can see arguments)"
    )
    key.add_argument("--key-file", type=Path, metavar="FILE", help="file that holds the key")
    parser.add_argument("--json", action="store_true", help="print JSON")

    def command(arguments: argparse.Namespace) -> int:
        if (trouble := check(arguments)) is not None:
            parser.error(trouble)
        prepare(arguments)
        return asyncio.run(_run(act, arguments))

    parser.set_defaults(command=command)
    return parser


def add_session(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a session."""
    parser.add_argument("session", metavar="ID", type=_session, help="the session's id or external id")


def _session(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("is not valid UTF-8") from None
    if not text or text in (".", ".."):
        raise argparse.ArgumentTypeError("must be a session's id")
    return text


async def _run(act: Act, arguments: argparse.Namespace) -> int:
    terminal = Terminal.of_process()
    try:
        async with Remote.connect(_config(arguments)) as remote:
            return await act(remote, terminal, arguments)
    finally:
        terminal.end_line()


def _config(arguments: argparse.Namespace) -> ClientConfig:
    given = {"url": arguments.url, "key": arguments.key}
    if arguments.key_file is not None:
        given["key"] = _read_key(arguments.key_file)
    return attrs.evolve(ClientConfig.load(), **{name: value for name, value in given.items() if value is not None})


def _read_key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidError("--key-file", f"cannot be read: {reason}") from None
