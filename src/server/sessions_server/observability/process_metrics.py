"""Metrics of a server of several processes: whichever is asked answers for all.

Each process writes its own into a file of a folder that they share, every second. One that is asked for metrics adds what
the others have written to its own, and marks everything with the label ``process``. So a scrape, which reaches any of them,
finds every counter, and each counter only ever grows until its process is started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sessions_server.observability.metrics import Metrics

PAUSE_SECONDS: Final = 1.0
_SUFFIX: Final = ".prom"


class ProcessMetrics(Metrics):
    """Counts for one process, and shows the counts of all."""

    def __init__(self, folder: Path, index: int) -> None:
        super().__init__()
        self._folder, self._name = folder, str(index)

    async def publish_forever(self) -> None:
        """Let the others know, every second."""
        while True:
            self.publish()
            await asyncio.sleep(PAUSE_SECONDS)

    def publish(self) -> None:
        """Let the others know. Whoever reads at this moment finds what was there before."""
        draft = self._folder / f"{self._name}.new"
        draft.write_bytes(super().render())
        draft.replace(self._folder / f"{self._name}{_SUFFIX}")

    def render(self) -> bytes:
        """Return everything in Prometheus' text format: what this process knows now, and the others a second ago."""
        self.publish()
        files = sorted(self._folder.glob(f"*{_SUFFIX}"))
        return merge((file.stem, file.read_text()) for file in files)


def merge(texts: Iterable[tuple[str, str]]) -> bytes:
    """Return the metrics of all processes as one text; each is given with its process's name."""
    merged: dict[str, Metric] = {}
    for process, text in texts:
        for metric in text_string_to_metric_families(text):
            known = merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            known.samples += [
                sample._replace(labels={"process": process, **sample.labels}) for sample in metric.samples
            ]
    registry = CollectorRegistry()
    registry.register(_Fixed(merged))
    return generate_latest(registry)


class _Fixed(Collector):
    """Shows what it was given."""

    def __init__(self, metrics: dict[str, Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics.values()
