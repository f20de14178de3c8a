from hypothesis import given
from hypothesis import strategies as st

from sessions_core.domain.bounded import BoundedDict


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 9), st.integers()), max_size=60))
def test_it_holds_the_keys_that_were_put_in_last(limit: int, puts: list[tuple[int, int]]) -> None:
    bounded: BoundedDict[int, int] = BoundedDict(limit)
    model: list[tuple[int, int]] = []
    for key, value in puts:
        bounded[key] = value
        if key in dict(model):
            model = [(k, value if k == key else v) for k, v in model]
        else:
            model = [*model, (key, value)][-limit:]
        assert list(bounded.items()) == model
