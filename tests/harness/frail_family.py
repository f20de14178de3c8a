"""Two server processes that serve nothing; the second kills the first before it says that it is ready itself.

Run with a folder as its argument. The pause gives the parent time to hear of the death while it still waits for the second.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from sessions_server.cli import streams
from sessions_server.cli.processes import Family, Share


def serve(share: Share) -> None:
    """Be one of the two."""
    if share.index == 0:
        _live(share.folder)
    elif not (share.folder / "killed").exists():
        _kill_the_first(share.folder)
    signal.signal(signal.SIGTERM, lambda *_: None)
    share.ready()
    signal.pause()


def _live(folder: Path) -> None:
    with (folder / "lives").open("a") as lives:
        lives.write("0")
    # Held until the process has ended, and closed by nobody before.
    fcntl.flock(os.open(folder / "lock", os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)
    (folder / "pid").write_text(str(os.getpid()))


def _kill_the_first(folder: Path) -> None:
    (folder / "killed").touch()
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    time.sleep(0.5)


if __name__ == "__main__":
    code = Family(serve, (), 2, Path(sys.argv[1]), as_json=False).run()
    streams.settle()
    sys.exit(code)
