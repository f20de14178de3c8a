"""The server's own counters, read from ``/metrics``."""

from __future__ import annotations

import re
from contextlib import closing
from http.client import HTTPConnection
from time import perf_counter, sleep
from typing import Final

from benchmarks.caller import HOST

SUBSCRIPTIONS: Final = "sessions_subscriptions"
RUNS_ENDED: Final = "sessions_runs_ended_total"
_PAUSE_SECONDS: Final = 0.005


def read(connection: HTTPConnection, name: str) -> float:
    """Return the sum of a counter over its labels."""
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def await_value(port: int, name: str, value: float, patience: float = 60.0) -> float:
    """Wait until a counter has *value*; return after how many seconds it had.

    Raises:
        TimeoutError: It never did.
    """
    started = perf_counter()
    with closing(HTTPConnection(HOST, port, timeout=patience)) as connection:
        while read(connection, name) != value:
            if perf_counter() - started > patience:
                raise TimeoutError(f"{name} did not become {value}")
            sleep(_PAUSE_SECONDS)
    return perf_counter() - started
