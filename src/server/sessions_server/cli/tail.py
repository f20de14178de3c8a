"""``sessions tail``: what is in a channel, and what comes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

import attrs

from sessions_core.domain.channel import TURN_COMPLETE, Io, Record
from sessions_core.domain.ids import is_friendly_id
from sessions_server.cli.connection import add_command, add_session
from sessions_server.cli.following import FROM_END, Follower
from sessions_server.cli.remote import RefusedError, Remote, session_path
from sessions_server.cli.terminal import Terminal
from sessions_server.cli.text import printable, to_json
from sessions_server.cli.transcript import Transcript, describe_record, raw_text

EXAMPLES: Final = """examples:
  sessions tail hello
  sessions tail hello --channel in --no-follow
  sessions tail hello --from end --until-turn-complete
  sessions tail hello --json | jq 'select(.kind == "control")'

Goes on where it was when the connection is lost or the server starts again.
Ctrl-C ends it.
"""


def add_parser(commands: Any) -> None:
    """Add ``tail`` to the command line."""
    parser = add_command(
        commands,
        "tail",
        run,
        summary="print the records of a channel and those that come",
        examples=EXAMPLES,
        check=_check,
    )
    add_session(parser)
    parser.add_argument("--channel", choices=[*map(str, Io)], default="out", help="which channel (default: out)")
    parser.add_argument(
        "--from",
        dest="start",
        type=_start,
        default=0,
        metavar="SEQ",
        help="seq to begin with, start or end (default: start)",
    )
    parser.add_argument("--no-follow", action="store_true", help="end with what is there now")
    parser.add_argument("--until-turn-complete", action="store_true", help="end after the first turn-complete")
    parser.add_argument("--raw", action="store_true", help="print the data of data records only, as it is")


def _check(arguments: argparse.Namespace) -> str | None:
    return "--raw is not allowed with --json" if arguments.raw and arguments.json else None


def _start(text: str) -> int | None:
    if text in ("start", "end"):
        return 0 if text == "start" else None
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) < FROM_END):
        raise argparse.ArgumentTypeError("must be a seq, start or end")
    return int(text)


async def run(remote: Remote, terminal: Terminal, arguments: argparse.Namespace) -> int:
    """Print the channel."""
    io = Io(arguments.channel)
    follower = Follower(
        remote=remote,
        terminal=terminal,
        sink=_Printer(terminal, _form(terminal, io, arguments), arguments.json, arguments.until_turn_complete),
        session=arguments.session,
        io=io,
        next_seq=arguments.start,
        stops_at_tail=arguments.no_follow,
    )
    async with terminal.waiting_for(f"following {io} of {arguments.session}; Ctrl-C ends"):
        absence = await _find_absence(remote, arguments.session)
        if absence is not None and not arguments.no_follow:
            terminal.note(f"there is no session {arguments.session} yet; waiting for it")
        await follower.run()
    if absence is not None and arguments.no_follow and follower.first_tail == 0:
        raise absence
    return 0


async def _find_absence(remote: Remote, name: str) -> RefusedError | None:
    """Return the server's answer if it says that it has no session *name*; any other trouble is left to the following."""
    if is_friendly_id(name):
        return None  # The server refuses to follow one that is not there.
    try:
        await remote.get(session_path(name), dict)
    except RefusedError as error:
        return error if error.is_not_found else None
    return None


def _form(terminal: Terminal, io: Io, arguments: argparse.Namespace) -> Callable[[Record], str]:
    if arguments.json:
        return lambda record: to_json(describe_record(record)) + "\n"
    if arguments.raw:
        return lambda record: printable(raw_text(record)) if terminal.is_screen else raw_text(record)
    return Transcript(io, terminal.style).add


@attrs.frozen
class _Printer:
    """Prints each record in one form, and gaps so that nobody takes what is left for the whole."""

    _terminal: Terminal
    _form: Callable[[Record], str]
    _is_json: bool
    _until_turn_complete: bool

    def take(self, record: Record) -> bool:
        self._terminal.write(self._form(record))
        return self._until_turn_complete and record.control == TURN_COMPLETE

    def miss(self, first_missing: int, first_kept: int) -> None:
        if self._is_json:
            self._terminal.write_json({"kind": "gap", "firstMissing": first_missing, "firstKept": first_kept})
        else:
            self._terminal.warn(f"records {first_missing} to {first_kept - 1} are no longer kept")
