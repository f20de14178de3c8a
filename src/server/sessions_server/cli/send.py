"""``sessions send``: append to a session's ``in``, and perhaps wait for the answer."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from sessions_core.chat import action_message, close_message, regenerate_message, stop_message, user_message
from sessions_core.domain.channel import Io, encode_json
from sessions_core.domain.ids import is_friendly_id
from sessions_core.errors import InvalidError
from sessions_core.services.session_service import DEFAULT_TYPE
from sessions_server.cli.answer import AnswerReader
from sessions_server.cli.connection import add_command, add_session
from sessions_server.cli.following import FROM_END, Follower
from sessions_server.cli.remote import SESSIONS, Remote, session_path
from sessions_server.cli.shapes import Channels
from sessions_server.cli.terminal import Terminal
from sessions_server.cli.text import one_line

_PIECE: Final = 65_536
EXAMPLES: Final = """examples:
  sessions send hello "how are you?" --create echo --wait
  git diff | sessions send review - --wait
  sessions send hello --stop
  sessions send hello --action '{"type": "undo"}'
  sessions send hello '{"kind": "my-own"}' --raw --part-id order-17

A message is sent again until the server has said that it has it; the part id sees
to it that it is stored once. Name one yourself to repeat a whole command safely.
"""


def add_parser(commands: Any) -> None:
    """Add ``send`` to the command line."""
    parser = add_command(
        commands,
        "send",
        run,
        summary="send a message to a session",
        examples=EXAMPLES,
        check=_check,
        prepare=_read_text,
    )
    add_session(parser)
    parser.add_argument("text", metavar="TEXT", nargs="?", help="what the user says; - reads it from standard input")
    parser.add_argument("--stop", action="store_true", help="stop the turn that is running")
    parser.add_argument("--regenerate", action="store_true", help="ask for another answer to the last message")
    parser.add_argument("--action", type=_json, metavar="JSON", help="send an action of the agent's own")
    parser.add_argument(
        "--close-message", action="store_true", help="ask the agent to leave; the session itself stays open"
    )
    parser.add_argument("--raw", action="store_true", help="append TEXT as it is, as one record")
    parser.add_argument("--create", metavar="TASK", help="create the session, bound to TASK, if it is not there")
    parser.add_argument("--wait", action="store_true", help="print the answer; end with its turn-complete")
    parser.add_argument("--part-id", metavar="ID", help="your name for this record (default: a random one)")

    parser.set_defaults(take_late=take_late_text)


def take_late_text(arguments: argparse.Namespace, left: Sequence[str]) -> Sequence[str]:
    """Find TEXT among the words that *left* over, and return the others.

    argparse gives up on an optional word that has options between it and the one before.
    """
    words = left[1:] if left[0] == "--" else left
    if arguments.text is not None or not words or (words is left and words[0].startswith("-") and words[0] != "-"):
        return left
    arguments.text = words[0]
    return words[1:]


def _json(text: str) -> Any:
    try:
        value = json.loads(text)
        encode_json(value)
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError("must be JSON") from None
    return value


def _check(arguments: argparse.Namespace) -> str | None:
    signals = arguments.stop + arguments.regenerate + arguments.close_message + (arguments.action is not None)
    if signals + (arguments.text is not None) != 1:
        return "give one of TEXT, --stop, --regenerate, --action and --close-message"
    if arguments.wait and (arguments.stop or arguments.close_message):
        return "nothing answers --stop and --close-message, so --wait would not end"
    if arguments.raw and arguments.text is None:
        return "--raw needs TEXT"
    if arguments.create is not None and is_friendly_id(arguments.session):
        return "--create needs an external id of your own; the server makes ids that begin with session_"
    return None


async def run(remote: Remote, terminal: Terminal, arguments: argparse.Namespace) -> int:
    """Append what is asked for; print where it is, or the answer."""
    text = _record_text(arguments)
    part_id = arguments.part_id or secrets.token_urlsafe(15)
    async with terminal.waiting_for(f"sending to {arguments.session}"):
        if arguments.create is not None:
            await remote.post(SESSIONS, _new_session(arguments.session, arguments.create), dict)
        before = await _look(remote, arguments.session) if arguments.wait else None
        seq = await remote.append(arguments.session, Io.IN, text, part_id)
    if before is None:
        _report(terminal, arguments, {"seq": seq, "partId": part_id})
        return 0
    reader = await _await_answer(remote, terminal, arguments, before, seq)
    answer = reader.answer
    if arguments.json:
        sent = {"seq": seq, "partId": part_id}
        answered = {"text": answer.text, "chunks": answer.chunks, "turnComplete": answer.seq, "error": reader.trouble}
        terminal.write_json({**sent, **answered})
    elif not terminal.is_screen and answer.text:
        terminal.write(answer.text + "\n")
    if reader.trouble is not None:
        terminal.warn(reader.trouble)
    return 0 if reader.trouble is None else 1


def _report(terminal: Terminal, arguments: argparse.Namespace, sent: Mapping[str, Any]) -> None:
    if arguments.json:
        terminal.write_json(sent)
    else:
        terminal.write(f"{one_line(arguments.session)}: stored as seq {sent['seq']} of in\n")


def _record_text(arguments: argparse.Namespace) -> str:
    if arguments.text is None:
        return encode_json(_signal(arguments))
    text: str = arguments.text
    return text if arguments.raw else encode_json(user_message(text.removesuffix("\n")))


def _signal(arguments: argparse.Namespace) -> Mapping[str, Any]:
    if arguments.stop:
        return stop_message()
    if arguments.regenerate:
        return regenerate_message()
    return close_message() if arguments.close_message else action_message(arguments.action)


def _read_text(arguments: argparse.Namespace) -> None:
    """Put TEXT in the place of ``-``.

    Raises:
        InvalidError: It cannot be had, or is no text.
    """
    if arguments.text == "-":
        arguments.text = _read_stdin()
    if arguments.text is not None:
        _check_utf8(arguments.text)


def _read_stdin() -> str:
    if sys.stdin is None:
        raise InvalidError("standard input", "is closed")
    pieces = iter(lambda: os.read(sys.stdin.fileno(), _PIECE), b"")  # One read() for all can miss a Ctrl-C within it.
    try:
        return b"".join(pieces).decode()
    except UnicodeDecodeError:
        raise InvalidError("standard input", "is not valid UTF-8") from None


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidError("TEXT", "is not valid UTF-8") from None


def _new_session(name: str, task: str) -> dict[str, Any]:
    payload = {"trigger": "preload", "chatId": name}
    config = {"basePayload": payload}
    return {"type": DEFAULT_TYPE, "externalId": name, "taskIdentifier": task, "triggerConfig": config}


@attrs.frozen(kw_only=True)
class _Before:
    """How the session was before the message.

    Attributes:
        is_quiet: Whether no turn was under way.
    """

    next_in: int
    next_out: int
    is_quiet: bool


async def _look(remote: Remote, name: str) -> _Before:
    channels: Channels = await remote.get(session_path(name, "channels"), Channels)
    ends = {channel["io"]: channel["nextSeqNum"] for channel in channels["data"]}
    next_in, next_out = ends.get(Io.IN, 0), ends.get(Io.OUT, 0)
    async with remote.subscribe(name, Io.OUT, FROM_END, peek_settled=True) as subscription:
        return _Before(next_in=next_in, next_out=next_out, is_quiet=next_in == 0 or subscription.is_settled)


async def _await_answer(
    remote: Remote, terminal: Terminal, arguments: argparse.Namespace, before: _Before, seq: int
) -> AnswerReader:
    """Read ``out`` up to the turn-complete that covers *seq*.

    What comes is shown at once only if it belongs to this message: nothing was under way before it, and nobody else's
    message came in between. A message that had been stored before, by an earlier try, may have been answered already.
    """
    is_repeated = seq < before.next_in
    reader = AnswerReader(
        seq,
        terminal,
        shows=terminal.is_screen and not arguments.json,
        is_known=before.is_quiet and seq == before.next_in,
    )
    follower = Follower(
        remote=remote,
        terminal=terminal,
        sink=reader,
        session=arguments.session,
        io=Io.OUT,
        next_seq=0 if is_repeated else before.next_out,
    )
    async with terminal.waiting_for(f"waiting for the answer of {arguments.session}"):
        await follower.run()
    return reader
