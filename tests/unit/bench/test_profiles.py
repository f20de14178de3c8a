"""What the benchmarks of each profile compare."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import pytest

from benchmarks import chains, cli
from benchmarks.appends import ALONE, CROWD, GOALS, Appends
from benchmarks.figures import Series
from benchmarks.lists import APART, NOW, begin, end_of_month, middle
from benchmarks.page_reads import KINDS, PAGE
from benchmarks.pages import Pages
from benchmarks.samples import Samples
from benchmarks.scale import FULL, SHORT
from benchmarks.targets import BARE, INSERT, S2_APPEND, SERVER, SYNCED
from benchmarks.wake_ups import NOTIFY, OTHER, SAME, WakeUps
from harness.chain import Chain
from sessions_adapters.profiles import EMBEDDED, POSTGRES, SCALE

LONE, MANY = len(ALONE), len(CROWD)


def series(*milliseconds: float) -> Series:
    """One round for each given latency, of requests that all took as long."""
    return Series([Samples(latencies=[ms / 1000] * 10, seconds=ms / 100, sent=[10], busy=0.0) for ms in milliseconds])


def appends(profile: str, alone: dict[str, Series], crowd: dict[str, Series]) -> Appends:
    found = {(target, LONE): value for target, value in alone.items()}
    return Appends(GOALS[profile], found | {(target, MANY): value for target, value in crowd.items()})


CROWDS = {BARE: series(1.0, 1.0), SERVER: series(2.0, 4.0)}


@pytest.mark.parametrize(
    ("profile", "yardstick", "ratios"),
    [(EMBEDDED, SYNCED, [2.0, 1.0]), (POSTGRES, INSERT, [0.8, 2 / 4.5]), (SCALE, S2_APPEND, [1.0, 2 / 3.5])],
)
def test_the_p50_of_a_lone_writer_is_divided_by_its_budget_round_by_round(
    profile: str, yardstick: str, ratios: list[float]
) -> None:
    alone = {BARE: series(0.5, 0.5), yardstick: series(1.0, 2.0), SERVER: series(2.0, 2.0)}
    figure = appends(profile, alone, CROWDS).figures[0]
    assert figure.values == pytest.approx(ratios)
    assert yardstick in figure.name


@pytest.mark.parametrize(("profile", "is_asked"), [(EMBEDDED, True), (POSTGRES, True), (SCALE, False)])
def test_the_throughput_of_many_writers_is_a_share_of_the_bare_handlers(profile: str, is_asked: bool) -> None:
    alone = dict.fromkeys(GOALS[profile].targets, series(1.0, 1.0))
    _, *rates = appends(profile, alone, CROWDS).figures
    assert [figure.values for figure in rates] == [pytest.approx([0.5, 0.25])] * is_asked


def test_what_many_writers_were_not_measured_with_is_left_out_of_their_comparison() -> None:
    alone = dict.fromkeys(GOALS[POSTGRES].targets, series(1.0, 1.0))
    lone, many = appends(POSTGRES, alone, CROWDS).comparisons
    assert (list(lone.values), lone.yardsticks, lone.limit) == ([BARE, INSERT, SERVER], 2, 3.0)
    assert (list(many.values), many.yardsticks, many.limit) == ([BARE, SERVER], 1, 400.0)


def test_pages_of_the_long_list_are_divided_by_those_of_the_short_one() -> None:
    found = Pages("Postgres", (10, 1000))
    for kind, (short, long) in zip(KINDS, ((1.0, 2.0), (2.0, 1.0), (1.0, 1.0)), strict=True):
        found.series.update({(kind, 10): series(short), (kind, 1000): series(long)})
    assert [figure.values for figure in found.figures] == [[2.0], [0.5], [1.0]]


def test_the_middle_of_a_list_lies_between_its_ends() -> None:
    assert middle(1000).created_at == begin(500)


@pytest.mark.parametrize("count", sorted({*FULL.session_counts, *SHORT.session_counts}))
def test_every_list_has_a_page_over_the_end_of_a_month_and_its_middle_is_none(count: int) -> None:
    def months_of(beginning: datetime) -> set[int]:
        return {(beginning - number * APART).month for number in range(1, PAGE + 1)}

    over = end_of_month(count).created_at
    assert begin(count) < over - PAGE * APART < NOW
    assert len(months_of(over)) == 2
    assert len(months_of(middle(count).created_at)) == len(months_of(NOW)) == 1


def test_a_wake_up_is_judged_by_its_p99_in_another_process() -> None:
    found = WakeUps({NOTIFY: series(1.0), SAME: series(2.0), OTHER: series(30.0)})
    [figure] = found.figures
    assert figure.value == pytest.approx(30.0)
    assert not figure.is_met
    assert [row[-1] for row in found.rows] == ["1.0", "2.0", "30.0"]


def records(*seqs: int) -> list[dict[str, Any]]:
    chain = Chain("w")
    return [{"seqNum": seq, "data": chain.link()} for seq in seqs]


@pytest.mark.parametrize(
    ("seqs", "is_wrong"), [((0, 1, 2), False), ((1, 2, 3), False), ((1, 3, 4), True), ((2, 1, 3), True)]
)
def test_seqs_begin_anywhere_but_have_no_gaps(seqs: tuple[int, ...], is_wrong: bool) -> None:
    assert bool(list(chains._wrong(records(*seqs), 3))) is is_wrong


def test_the_first_record_is_missed_wherever_seqs_begin() -> None:
    assert list(chains._wrong(records(0, 1, 2)[1:], 2))


def test_a_part_that_the_profile_does_not_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--profile", "postgres", "--only", "fan-out"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "postgres has no part fan-out: it has appends, direct-writes, wake-ups, pages" in capsys.readouterr().err
