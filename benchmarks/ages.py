"""What the age of a channel costs: the same requests to a young and to an old one, by turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs
from harness.chain import Chain

from benchmarks import requests
from benchmarks.caller import IsWhole, has_body, has_ended, has_records
from benchmarks.figures import Figure, Series, p50_ratios
from benchmarks.fill import fill
from benchmarks.load import Exchanges, Writer
from benchmarks.processes import LoadClient
from benchmarks.progress import Progress
from benchmarks.scale import Scale
from benchmarks.stage import Stage

AIM: Final = 1.5
YOUNG_RECORDS: Final = 100
YOUNG: Final = "young"
OLD: Final = "old"
BEHIND: Final = 10
"""How many records before the tail a reader comes back."""
