"""The process of one command, from its first moment to its exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from sessions_server.cli import streams

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 fine, 1 failed, 2 wrong usage, 3 not found, 130 interrupted).

    Whoever reads standard output through a pipe may stop at any time: that is fine, too. Trouble of the operating system,
    as with a full disk, is one line like any other.
    """
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return 0
    except OSError as error:
        streams.tell(str(error) or type(error).__name__)
        return EXIT_FAILED
    finally:
        streams.settle()


def _run(argv: Sequence[str] | None) -> int:
    streams.prepare()
    if sys.stdout is None:
        sys.stdout = sys.stderr
        streams.tell("standard output is closed")
        return EXIT_FAILED
    from sessions_server.cli import command_line  # Most of the time of a short command: Ctrl-C comes here.

    try:
        return command_line.run(argv)
    finally:
        sys.stdout.flush()
