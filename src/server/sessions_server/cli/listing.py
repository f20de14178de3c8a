"""``sessions list``: the sessions of an environment, newest first."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from sessions_core.domain.pagination import MAX_PAGE_SIZE
from sessions_core.domain.status import SessionStatus, derive_status
from sessions_server.cli.connection import add_command
from sessions_server.cli.remote import SESSIONS, Remote
from sessions_server.cli.shapes import SessionPage
from sessions_server.cli.terminal import Terminal
from sessions_server.cli.text import Style, table

DEFAULT_LIMIT: Final = 20
EXAMPLES: Final = """examples:
  sessions list
  sessions list --status ACTIVE --tag customer-7 --limit 100
  sessions list --task echo --all --json | jq -r '.[].id'
"""
_HEAD: Final = ("ID", "EXTERNAL ID", "STATUS", "TASK", "CREATED", "TAGS")


def add_parser(commands: Any) -> None:
    """Add ``list`` to the command line."""
    parser = add_command(commands, "list", run, summary="list sessions, newest first", examples=EXAMPLES)
    parser.add_argument("--status", action="append", type=_status, help="ACTIVE, CLOSED or EXPIRED; may be repeated")
    parser.add_argument("--tag", action="append", help="only those with this tag; may be repeated")
    parser.add_argument("--task", action="append", help="only those of this task; may be repeated")
    most = parser.add_mutually_exclusive_group()
    most.add_argument(
        "--limit", type=_limit, default=DEFAULT_LIMIT, metavar="N", help=f"how many (default: {DEFAULT_LIMIT})"
    )
    most.add_argument("--all", action="store_true", help="all there are")


def _status(text: str) -> str:
    try:
        return SessionStatus(text.upper()).value
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(SessionStatus)}") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 16 and int(text) > 0):
        raise argparse.ArgumentTypeError("must be a whole number from 1 on")
    return int(text)


async def run(remote: Remote, terminal: Terminal, arguments: argparse.Namespace) -> int:
    """Print the list."""
    limit = None if arguments.all else arguments.limit
    rows: list[dict[str, Any]] = []
    is_cut = False
    async with terminal.waiting_for("reading the list"):
        async for row in _rows(remote, _filters(arguments), limit):
            if is_cut := len(rows) == limit:
                break
            rows.append(row)
    if arguments.json:
        terminal.write_json(rows, indent=2)
        return 0
    terminal.write("".join(f"{line}\n" for line in format_rows(rows, terminal.style)))
    if is_cut:
        terminal.note(f"there are more than {limit}: --limit N or --all")
    return 0


def _filters(arguments: argparse.Namespace) -> dict[str, str]:
    given = {"status": arguments.status, "tags": arguments.tag, "taskIdentifier": arguments.task}
    return {f"filter[{name}]": ",".join(words) for name, words in given.items() if words}


async def _rows(remote: Remote, filters: dict[str, str], limit: int | None) -> AsyncIterator[dict[str, Any]]:
    """Yield the sessions of one page after another, each with its status. A page may be short, even empty."""
    size = MAX_PAGE_SIZE if limit is None else min(limit + 1, MAX_PAGE_SIZE)
    query = {**filters, "page[size]": str(size)}
    while True:
        page: SessionPage = await remote.get(SESSIONS, SessionPage, query)
        for row in map(dict, page["data"]):
            yield {**row, "status": status_of(row, datetime.now(UTC)).value}
        if (cursor := page["pagination"].get("next")) is None:
            return
        query["page[after]"] = cursor


def status_of(row: dict[str, Any], now: datetime) -> SessionStatus:
    """Tell the status of a session as the server shows it."""
    closed, expires = (
        None if (t := row[name]) is None else datetime.fromisoformat(t) for name in ("closedAt", "expiresAt")
    )
    return derive_status(closed, expires, now)


def format_rows(rows: list[dict[str, Any]], style: Style) -> list[str]:
    """Return the list as a table with a head; nothing for no sessions."""
    if not rows:
        return []
    head, *lines = table([_HEAD, *(_cells(row) for row in rows)])
    return [style.bold(head), *(_shade(line, row, style) for line, row in zip(lines, rows, strict=True))]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    tags = ", ".join(row["tags"])
    return (row["id"], row["externalId"] or "-", row["status"], row["taskIdentifier"], row["createdAt"], tags)


def _shade(line: str, row: dict[str, Any], style: Style) -> str:
    return line if row["status"] == SessionStatus.ACTIVE else style.dim(line)
