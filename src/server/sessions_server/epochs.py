"""The epoch under which a run writes over HTTP."""

from __future__ import annotations

from typing import Final

from sessions_core.errors import InvalidError
from sessions_server.route import Call
from sessions_server.wire.values import parse_digits

EPOCH_HEADER: Final = "X-Session-Epoch"
MAX_EPOCH: Final = 2**31 - 1


def read_epoch(call: Call) -> int | None:
    """Read the epoch, if the header is there. The first attempt's is 1.

    Raises:
        InvalidError: It is no whole number.
    """
    text = call.header(EPOCH_HEADER)
    return None if text is None else parse_digits(text, EPOCH_HEADER, 1, MAX_EPOCH)


def need_epoch(call: Call) -> int:
    """Read the epoch.

    Raises:
        InvalidError: It is missing, or no whole number.
    """
    epoch = read_epoch(call)
    if epoch is None:
        raise InvalidError(EPOCH_HEADER, "is required: the epoch of the attempt that asks")
    return epoch
