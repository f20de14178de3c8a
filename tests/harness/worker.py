"""A real worker: ``sessions worker`` in a process of its own."""

from __future__ import annotations

import re
import signal
import sys
from typing import Final, Self

import attrs

from harness.server import ServerProcess

WORKING: Final = re.compile("sessions is working")


@attrs.define(eq=False)
class WorkerProcess(ServerProcess):
    """Start it, kill it, freeze it, start it again on the same database."""

    options: tuple[str, ...] = ()

    def start(self) -> Self:
        """Start it and wait until it says that it works."""
        self.launch()
        self.wait_for(WORKING)
        return self

    def command(self) -> list[str]:
        """Return the command that starts it."""
        work = [sys.executable, "-m", "sessions_server", "worker", "--data", str(self.data), "--agents", self.agents]
        return [*work, *self.options]

    def freeze(self) -> None:
        """Let it stand still, as a machine does that is suspended."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)
