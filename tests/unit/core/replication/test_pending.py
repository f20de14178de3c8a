"""What waits is the newest state of each session, and nothing is forgotten."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

import attrs
from hypothesis import given
from hypothesis import strategies as st

from contract.makers import START, make_session
from sessions_core.ports.change_feed import Change, ChangeBatch, ChangeKind, UnreadableChange
from sessions_core.ports.session_index import IndexRow
from sessions_core.services.replication.pending import FlushBatch, Pending

NOW = 5.0


def change(name: object, version: int, tag: str = "") -> Change:
    return Change(ChangeKind.UPDATE, IndexRow(make_session(str(name), tags=(tag,)), version), size=version)


def unreadable(version: int) -> UnreadableChange:
    columns = {"id": None, "type": "x" * version}
    return UnreadableChange(kind=ChangeKind.UPDATE, session=None, version=version, reason="odd", columns=columns)


def batch(position: int, *changes: Change, odd: Sequence[UnreadableChange] = ()) -> ChangeBatch:
    return ChangeBatch(
        changes=changes,
        unreadable=tuple(odd),
        position=position,
        committed_at=START + timedelta(seconds=position),
    )


def states(taken: FlushBatch) -> dict[str, int]:
    return {change.row.session.id: change.row.version for change in taken.changes}


def test_the_newest_state_of_each_session_is_taken() -> None:
    pending = Pending()
    pending.add(batch(10, change("a", 10), change("b", 10)), NOW)
    pending.add(batch(20, change("a", 20)), NOW)
    taken = pending.take()
    assert states(taken) == {"session_a": 20, "session_b": 10}
    assert taken.since == START + timedelta(seconds=10)


def test_the_last_state_in_a_transaction_is_taken() -> None:
    pending = Pending()
    pending.add(batch(10, change("a", 10, "first"), change("a", 10, "last")), NOW)
    assert pending.take().changes == (change("a", 10, "last"),)


def test_an_older_state_that_comes_late_changes_nothing() -> None:
    pending = Pending()
    pending.add(batch(10, change("a", 10)), NOW)
    pending.add(batch(10, change("a", 9)), NOW)
    assert states(pending.take()) == {"session_a": 10}


def test_a_newer_state_stands_for_the_older_ones_that_were_never_written() -> None:
    pending = Pending()
    pending.add(batch(10, change("a", 10)), NOW)
    pending.add(batch(20, change("b", 20)), NOW)
    pending.add(batch(30, change("a", 30)), NOW)
    assert (pending.waiting, pending.held, pending.held_bytes, pending.safe) == (2, 2, 50, 0)
    pending.land(pending.take())
    assert (pending.waiting, pending.held, pending.held_bytes, pending.safe) == (0, 0, 0, 30)


def test_while_a_state_is_being_written_no_other_one_of_its_session_can_be_taken() -> None:
    pending = Pending()
    pending.add(batch(10, change("a", 10)), 1.0)
    older = pending.take()
    pending.add(batch(20, change("a", 20)), 2.0)
    pending.add(batch(30, change("b", 30)), 3.0)
    pending.add(batch(40, change("a", 40)), 4.0)
    assert (pending.waiting, pending.waiting_since, pending.held) == (1, 3.0, 3)
    other = pending.take()
    assert states(other) == {"session_b": 30}
    pending.land(other)
    assert (pending.waiting, pending.waiting_since, pending.safe) == (0, None, 0)
    pending.land(older)
    assert (pending.waiting, pending.waiting_since, pending.safe) == (1, 2.0, 10)
    newer = pending.take()
    assert states(newer) == {"session_a": 40}
    assert newer.since == START + timedelta(seconds=20)
    pending.land(newer)
    assert (pending.held, pending.safe) == (0, 40)


def test_what_cannot_be_read_waits_as_a_letter() -> None:
    pending = Pending()
    pending.add(batch(10, odd=[unreadable(10), unreadable(10)]), NOW)
    assert (pending.waiting, pending.held, pending.held_bytes, pending.waiting_since) == (2, 2, 20, NOW)
    taken = pending.take()
    assert [letter.version for letter in taken.letters] == [10, 10]
    pending.land(taken)
    assert (pending.held, pending.held_bytes, pending.safe) == (0, 0, 10)


def test_time_is_counted_from_the_first_row_that_waits() -> None:
    pending = Pending()
    seen = [pending.waiting_since]
    for position, now in ((10, 1.0), (20, 2.0)):
        pending.add(batch(position, change(position, position)), now)
        seen.append(pending.waiting_since)
    pending.take()
    seen.append(pending.waiting_since)
    pending.add(batch(30, change("c", 30)), 3.0)
    assert [*seen, pending.waiting_since] == [None, 1.0, 1.0, None, 3.0]


@attrs.define(eq=False)
class Story:
    """Batches come, are taken and land, in any order; what is written and what is safe is compared all the time."""

    rng: random.Random
    pending: Pending = attrs.field(factory=Pending)
    position: int = 0
    index: dict[str, int] = attrs.field(factory=dict)
    letters: set[int] = attrs.field(factory=set)
    log: list[tuple[int, str | None, int]] = attrs.field(factory=list)
    out: list[FlushBatch] = attrs.field(factory=list)

    def add(self, names: list[int], odd: int, is_part: bool) -> None:
        version = self.position + 10
        self.position = self.position if is_part else version
        changes = [change(name, version) for name in names]
        is_late = self.position <= self.pending.safe  # a part whose position was safe before it came
        self.pending.add(batch(self.position, *changes, odd=[unreadable(version)] * odd), NOW)
        if not is_late:
            self.log += [(self.position, one.row.session.id, version) for one in changes]
            self.log += [(self.position, None, version)] * odd

    def take(self) -> None:
        if self.pending.waiting:
            self.out.append(self.pending.take())

    def land(self) -> None:
        if self.out:
            landed = self.out.pop(self.rng.randrange(len(self.out)))
            for name, version in states(landed).items():
                self.index[name] = max(self.index.get(name, 0), version)
            self.letters |= {letter.version for letter in landed.letters}
            self.pending.land(landed)

    def check(self) -> None:
        for position, name, version in self.log:
            if position <= self.pending.safe:
                assert version in self.letters if name is None else self.index[name] >= version
        sessions = [name for batch in self.out for name in states(batch)]
        assert len(set(sessions)) == len(sessions)
        letters = sum(len(batch.letters) for batch in self.out)
        assert self.pending.held == len(sessions) + letters + self.pending.waiting + len(self.pending._blocked)
        assert (self.pending.waiting_since is None) == (self.pending.waiting == 0)

    def end(self) -> None:
        self.take()
        while self.out:
            self.land()
            self.check()
            self.take()
        assert (self.pending.held, self.pending.held_bytes) == (0, 0)
        assert self.pending.safe == self.position


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "part", "take", "land"]),
        st.lists(st.integers(0, 4), max_size=4),
        st.integers(0, 2),
    ),
    max_size=40,
)


@given(steps, st.randoms(use_true_random=False))
def test_whatever_lands_in_whatever_order_only_what_is_written_is_safe(
    told: list[tuple[str, list[int], int]], rng: random.Random
) -> None:
    story = Story(rng)
    for step, names, odd in told:
        match step:
            case "take":
                story.take()
            case "land":
                story.land()
            case _:
                story.add(names, odd, is_part=step == "part")
        story.check()
    story.end()
