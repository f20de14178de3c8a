"""What the age of a channel costs: the same requests to a young and to an old one, by turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

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
YOUNG: Final = "young"
OLD: Final = "old"
PAIR: Final = (YOUNG, OLD)
YOUNG_RECORDS: Final = 100
BEHIND: Final = 10
"""How many records before the tail a reader comes back."""


@attrs.frozen
class Ages:
    """What was found.

    Attributes:
        sizes: Records of each channel, by session.
        series: By kind of request and session.
    """

    sizes: dict[str, int]
    series: dict[tuple[str, str], Series] = attrs.field(factory=dict)

    @property
    def figures(self) -> list[Figure]:
        """What matters."""
        old, young = self.sizes[OLD], self.sizes[YOUNG]
        return [
            Figure(
                name=f"{kind.name}: p50 at {old} records / at {young}",
                values=p50_ratios(self.series[kind.name, OLD], self.series[kind.name, YOUNG]),
                aim=AIM,
            )
            for kind in KINDS
        ]


@attrs.frozen
class _Subject:
    """A session of a certain age, in a certain round."""

    session: str
    token: str
    size: int
    round: str

    def appends(self, count: int) -> list[bytes]:
        return Writer(name=self.round, session=self.session, token=self.token).requests(count)

    def drains(self, count: int) -> list[bytes]:
        return [requests.records(self.session, self.token, self._behind)] * count

    def subscriptions(self, count: int) -> list[bytes]:
        return [requests.subscribe(self.session, self.token, self._behind)] * count

    def probes(self, count: int) -> list[bytes]:
        return [requests.subscribe(self.session, self.token, self.size - 1, peek_settled=True)] * count

    @property
    def _behind(self) -> int:
        return self.size - 1 - BEHIND


@attrs.frozen
class Kind:
    """A request whose cost should not depend on age."""

    name: str
    requests: Callable[[_Subject, int], list[bytes]]
    is_whole: IsWhole
    reconnect: bool = False


KINDS: Final = (
    Kind("append", _Subject.appends, has_body),
    Kind("resume by records", _Subject.drains, has_body),
    Kind("resume by SSE, first frame", _Subject.subscriptions, has_records, reconnect=True),
    Kind("settled probe, whole answer", _Subject.probes, has_ended, reconnect=True),
)


def measure(stage: Stage, client: LoadClient, scale: Scale, progress: Progress) -> Ages:
    """Fill channels, and measure. Restarts the server, so that nothing is remembered."""
    found = Ages({YOUNG: YOUNG_RECORDS, OLD: scale.old_records})
    stage.create(PAIR)
    stage.stop()
    asyncio.run(fill(stage.data, stage.environment_id, found.sizes, progress))
    progress.say("starting the server again")
    stage.start()
    _round(Ages(found.sizes), stage, client, "warm", scale.samples, PAIR)
    for number in range(scale.rounds):
        progress.say(f"round {number + 1} of {scale.rounds}: young and old channels")
        _round(found, stage, client, f"round-{number}", scale.samples, PAIR[:: -1 if number % 2 else 1])
    return found


def _round(found: Ages, stage: Stage, client: LoadClient, label: str, count: int, order: Sequence[str]) -> None:
    subjects = [_Subject(name, stage.tokens[name], found.sizes[name], label) for name in order]
    for kind in KINDS:
        scripts = [kind.requests(subject, count) for subject in subjects]
        samples = client.measure(Exchanges(stage.port, tuple(_by_turns(scripts)), kind.is_whole, kind.reconnect))
        for place, name in enumerate(order):
            found.series.setdefault((kind.name, name), Series()).rounds.append(samples.part(place, len(order)))


def _by_turns(scripts: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
    for requests_of_a_turn in zip(*scripts, strict=True):
        yield from requests_of_a_turn
