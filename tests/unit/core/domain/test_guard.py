import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.guard import SEALED, UNTOUCHED, Guard, GuardState

guards = st.builds(Guard, st.sampled_from(GuardState), st.integers(0, 10**12 - 1))
near = st.builds(Guard, st.sampled_from(GuardState), st.integers(0, 4))


@given(guards)
def test_a_guard_survives_its_text_form(guard: Guard) -> None:
    assert Guard.parse(str(guard)) == guard
    assert len(str(guard).encode()) <= 19


def test_an_untouched_channel_has_no_text() -> None:
    assert Guard.parse("") == UNTOUCHED == Guard.idle(0)


@pytest.mark.parametrize("text", ["live", "live:", "live:-1", "Live:1", "open:1", "live:1 ", "live:1234567890123", "1"])
def test_what_is_no_guard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a guard"):
        Guard.parse(text)


def test_a_number_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="number"):
        Guard.live(-1)


def test_guards_rise_in_the_documented_order() -> None:
    ladder = [UNTOUCHED, Guard.live(1), Guard.idle(1), Guard.live(2), Guard.idle(2), SEALED]
    for i, low in enumerate(ladder):
        for j, high in enumerate(ladder):
            assert low.rises_to(high) == (i < j)


@given(near, near)
def test_of_two_guards_exactly_one_comes_later_unless_they_are_equal(a: Guard, b: Guard) -> None:
    same = a == b or (a.is_sealed and b.is_sealed)
    assert a.rises_to(b) + b.rises_to(a) == (0 if same else 1)


@given(near, near, near)
def test_later_is_transitive(a: Guard, b: Guard, c: Guard) -> None:
    if a.rises_to(b) and b.rises_to(c):
        assert a.rises_to(c)


@given(near)
def test_sealed_is_final_and_reachable_from_everything_else(guard: Guard) -> None:
    assert not SEALED.rises_to(guard)
    assert guard.rises_to(SEALED) == (not guard.is_sealed)


@given(st.lists(near, max_size=30))
def test_numbers_never_fall_whatever_is_tried(attempts: list[Guard]) -> None:
    current = UNTOUCHED
    for new in attempts:
        if current.rises_to(new):
            assert new.is_sealed or new.number >= current.number
            assert not current.is_sealed
            current = new
