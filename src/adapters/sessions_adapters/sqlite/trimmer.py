"""Trimming: the command at once, the deletion little by little."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import attrs

from sessions_adapters.sqlite.followers import FollowersOfAppends
from sessions_adapters.sqlite.heads import channel_of
from sessions_adapters.sqlite.log_writer import LogWriter
from sessions_adapters.sqlite.requests import Append, Work
from sessions_core.domain.channel import Channel

FIND_UNSWEPT: Final = "select environment, key, io, name from channel where swept_seq < first_seq"


@attrs.define(eq=False)
class Trimmer:
    """Lets records go.

    The head row says at once what is no longer kept, and no reader sees it any more. The rows are deleted in small
    steps, each within some transaction of the writer, so that a long channel does not hold the others up. The head row
    also says how far that has come; what a crash interrupts goes on at the next start.
    """

    _log: LogWriter
    _put: Callable[[Work[Any]], None]
    _followers: FollowersOfAppends

    def trim(self, command: Append, first_kept: int) -> tuple[Append, bool]:
        """Append *command* and let go what is before *first_kept*. Runs in the writer."""
        return command, self._log.trim(command, first_kept)

    def trimmed(self, answer: tuple[Append, bool]) -> None:
        """Tell followers, and delete what is left. Runs on the loop."""
        command, is_more = answer
        if command.error is None:
            self._followers.publish_appends([command])
        self._sweep_on(command.channel, is_more)

    def resume(self) -> None:
        """Go on where the last process stopped."""
        self._put(Work(_find_unswept, after=self._sweep_all))

    def _sweep_all(self, channels: Iterable[Channel]) -> None:
        for channel in channels:
            self._sweep_on(channel, True)

    def _sweep_on(self, channel: Channel, is_more: bool) -> None:
        if is_more:
            with suppress(sqlite3.Error):  # closed meanwhile: the next start goes on
                self._put(Work(lambda _: self._log.sweep(channel), after=partial(self._sweep_on, channel)))


def _find_unswept(connection: sqlite3.Connection) -> list[Channel]:
    return [channel_of(row) for row in connection.execute(FIND_UNSWEPT)]
