"""Whether everything that was acknowledged is there, once, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.requests import IN
from benchmarks.section import Checked
from benchmarks.stage import Stage
from harness.chain import broken_links


def verify(stage: Stage, acknowledged: Mapping[str, int]) -> Checked:
    """Read all sessions in *acknowledged*, and compare."""
    return asyncio.run(_verify(stage, acknowledged))


async def _verify(stage: Stage, acknowledged: Mapping[str, int]) -> Checked:
    total, problems = 0, list[str]()
    async with stage.client() as client:
        for name, count in acknowledged.items():
            stored = await client.records(name, IN)
            total += len(stored)
            problems += [f"{name}: {what}" for what in _wrong(stored, count)]
    return Checked(total, problems)


def _wrong(stored: list[dict[str, Any]], acknowledged: int) -> Iterator[str]:
    if len(stored) != acknowledged:
        yield f"{acknowledged} acknowledged, {len(stored)} stored"
    seqs = [record["seqNum"] for record in stored]
    if seqs != list(range(seqs[0], seqs[0] + len(seqs)) if seqs else []):
        yield "seqs have gaps or are out of order"
    yield from broken_links(record["data"] for record in stored)
