"""``sessions show``: one session with its runs, who waits on it, and its channels."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from sessions_core.domain.channel import Io
from sessions_server.cli.connection import add_command, add_session
from sessions_server.cli.listing import status_of
from sessions_server.cli.remote import Remote, session_path
from sessions_server.cli.shapes import Channels, History, HistoryLine, RunRow, SessionRow, Waits
from sessions_server.cli.terminal import Terminal
from sessions_server.cli.text import Style, one_line, table, to_json

DEFAULT_RUNS: Final = 5
MAX_RUNS: Final = 100
EXAMPLES: Final = """examples:
  sessions show hello
  sessions show hello --runs 50
  sessions show hello --json | jq '.channels[] | select(.io == "out").nextSeqNum'
"""


def add_parser(commands: Any) -> None:
    """Add ``show`` to the command line."""
    parser = add_command(
        commands, "show", run, summary="show a session: its row, runs, waits and channels", examples=EXAMPLES
    )
    add_session(parser)
    parser.add_argument(
        "--runs", type=_runs, default=DEFAULT_RUNS, metavar="N", help=f"how many runs (default: {DEFAULT_RUNS})"
    )


def _runs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MAX_RUNS):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MAX_RUNS}")
    return int(text)


async def run(remote: Remote, terminal: Terminal, arguments: argparse.Namespace) -> int:
    """Print the session."""
    async with terminal.waiting_for(f"reading {arguments.session}"):
        found = await _read(remote, arguments.session, arguments.runs)
    if arguments.json:
        terminal.write_json(found, indent=2)
    else:
        terminal.write("".join(f"{line}\n" for line in format_session(found, terminal.style)))
    return 0


async def _read(remote: Remote, name: str, runs: int) -> dict[str, Any]:
    session = await remote.get(session_path(name), SessionRow)
    history, waitpoints, channels = await asyncio.gather(
        remote.get(session_path(name, "runs"), History, {"limit": str(runs)}),
        remote.get(session_path(name, "waitpoints"), Waits),
        remote.get(session_path(name, "channels"), Channels),
    )
    lines: list[HistoryLine] = history["data"]
    records = await asyncio.gather(*(remote.get(_run_path(line), RunRow) for line in lines))
    return {
        "session": {**session, "status": status_of(session, datetime.now(UTC)).value},
        "runs": [{**run, "triggeredAt": line["triggeredAt"]} for run, line in zip(records, lines, strict=True)],
        "waitpoints": waitpoints["data"],
        "channels": channels["data"],
    }


def _run_path(line: HistoryLine) -> str:
    return f"/api/v1/runs/{quote(line['runId'], safe='')}"


def format_session(found: Mapping[str, Any], style: Style) -> Iterator[str]:
    """Yield the lines that tell people what was found."""
    for name, value in _facts(found["session"]):
        yield f"{style.bold(f'{name:<12}')} {one_line(value)}"
    yield from _section("runs, newest first", [_run_cells(line) for line in found["runs"]], style)
    yield from _section("waits", [_wait_cells(waitpoint) for waitpoint in found["waitpoints"]], style)
    yield from _section("channels", [_channel_cells(channel) for channel in found["channels"]], style)


def _facts(session: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "session", session["id"]
    yield "external id", session["externalId"] or "none"
    yield "status", _status(session)
    yield "task", f"{session['taskIdentifier']} ({session['type']})"
    yield "created", session["createdAt"]
    yield "updated", session["updatedAt"]
    yield "expires", session["expiresAt"] or "never"
    yield "tags", ", ".join(session["tags"]) or "none"
    if session["metadata"]:
        yield "metadata", to_json(session["metadata"])


def _status(session: Mapping[str, Any]) -> str:
    if session["closedAt"] is None:
        return str(session["status"])
    reason = f": {session['closedReason']}" if session["closedReason"] else ""
    return f"{session['status']} since {session['closedAt']}{reason}"


def _section(title: str, rows: Sequence[Sequence[str]], style: Style) -> Iterator[str]:
    yield ""
    yield style.bold(title)
    yield from (f"  {line}" for line in table(rows) or ["none"])


def _run_cells(run: Mapping[str, Any]) -> tuple[str, ...]:
    times = [f"{word} {run[name]}" for word, name in (("triggered", "triggeredAt"), ("ended", "endedAt")) if run[name]]
    attempt = f"attempt {run['attempt']}" if run["attempt"] else "not begun"
    error = f"error {run['error']}" if run["error"] else ""
    return (run["id"], run["status"], run["reason"], attempt, ", ".join(times), error)


def _wait_cells(waitpoint: Mapping[str, Any]) -> tuple[str, ...]:
    last = waitpoint["lastSeqNum"]
    after = f"{waitpoint['io']} after seq {last}" if last >= 0 else f"{waitpoint['io']} from the start"
    until = f"until {waitpoint['timeoutAt']}" if waitpoint["timeoutAt"] else "without limit"
    return (waitpoint["id"], after, f"by {waitpoint['runId']}", f"since {waitpoint['createdAt']}", until)


def _channel_cells(channel: Mapping[str, Any]) -> tuple[str, ...]:
    first, following = channel["firstSeqNum"], channel["nextSeqNum"]
    kept = "empty" if first == following == 0 else f"first seq {first}, next {following}"
    last = f"last record {channel['lastRecordAt']}" if channel["lastRecordAt"] else "no record yet"
    guard = channel["guard"]
    return (channel["io"], kept, last, guard_in_words(channel["io"], guard["state"], guard["number"]))


def guard_in_words(io: str, state: str, number: int) -> str:
    """Tell what a channel's guard means for those who append."""
    if state == "sealed":
        return "sealed: takes no records any more"
    if io == Io.IN:
        return f"open: run version {number} reads it" if state == "live" else "idle: the next message starts a run"
    return f"open to epoch {number}" if state == "live" else "idle: no run writes it"
