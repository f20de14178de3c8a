"""A transaction's messages, held until its end has come: in memory, and beyond a limit in a temporary file."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Final

import attrs

OVERHEAD: Final = 64
"""About what an object takes beside its bytes."""
_LENGTH: Final = struct.Struct("!I")


@attrs.define(eq=False)
class HeldMessages:
    """A queue that is filled once and then read once. Small writes to a file end in memory: they block nobody for long.

    Raises:
        OSError: There is no room for the file, or it cannot be read; from ``add`` and while messages are given.
    """

    _limit: int
    _recent: list[bytes] = attrs.field(init=False, factory=list)
    _size: int = attrs.field(init=False, default=0)
    _file: IO[bytes] | None = attrs.field(init=False, default=None)

    def add(self, message: bytes) -> None:
        """Put *message* at the end."""
        self._recent.append(message)
        self._size += len(message) + OVERHEAD
        if self._size > self._limit:
            self._spill()

    def __iter__(self) -> Iterator[bytes]:
        """Give all messages in order, from the first one on."""
        if self._file is not None:
            self._file.seek(0)
            while prefix := self._file.read(_LENGTH.size):
                yield self._file.read(*_LENGTH.unpack(prefix))
        yield from self._recent

    def clear(self) -> None:
        """Forget everything."""
        self._recent, self._size = [], 0
        if self._file is not None:
            with suppress(OSError):  # of what could not be written, and is not wanted any more
                self._file.close()
            self._file = None

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="sessions-transaction-")  # noqa: SIM115 - closed by clear()
        for message in self._recent:
            self._file.write(_LENGTH.pack(len(message)))
            self._file.write(message)
        self._recent, self._size = [], 0
