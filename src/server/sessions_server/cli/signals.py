"""SIGTERM and SIGINT for commands that run until they are told to stop."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from sessions_server.cli.text import to_json

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals(stop: asyncio.Event, *, as_json: bool, is_silent: bool = False) -> None:
    """Set *stop* at the first SIGTERM or SIGINT; a second one ends the process at once, as a crash would.

    Args:
        stop: Is set.
        as_json: Say so as a JSON object instead of a sentence.
        is_silent: Say nothing: another process speaks for this one.
    """
    loop = asyncio.get_running_loop()

    def ask() -> None:
        stop.set()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        if is_silent:
            return
        farewell = "sessions is stopping; a second signal ends it at once"
        print(to_json({"event": "stopping"}) if as_json else farewell, flush=True)

    for number in SIGNALS:
        loop.add_signal_handler(number, ask)
