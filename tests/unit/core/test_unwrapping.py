import anyio
import pytest

from sessions_core.unwrapping import consists_of, is_because_of, unwrap, unwrapped


def test_one_error_is_taken_out_of_any_number_of_groups() -> None:
    error = ValueError("x")
    nested: BaseException = error
    for _ in range(5):
        nested = BaseExceptionGroup("g", [nested])
    assert unwrap(nested) is error
    assert unwrap(error) is error


def test_several_errors_stay_together() -> None:
    group = ExceptionGroup("g", [ValueError(), KeyError()])
    assert unwrap(group) is group
    outer = ExceptionGroup("o", [group])
    assert unwrap(outer) is group


def test_a_single_error_leaves_the_block_as_itself() -> None:
    cause = KeyError("cause")
    error = ValueError("x")
    error.__cause__ = cause
    with pytest.raises(ValueError, match="x") as caught, unwrapped():
        raise ExceptionGroup("g", [ExceptionGroup("h", [error])])
    assert caught.value.__cause__ is cause


def test_a_group_of_several_and_a_plain_error_pass_unchanged() -> None:
    group = ExceptionGroup("g", [ValueError(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught, unwrapped():
        raise group
    assert caught.value is group
    with pytest.raises(KeyError), unwrapped():
        raise KeyError


async def test_what_a_task_raises_can_be_named_outside_the_task_group() -> None:
    async def fail() -> None:
        raise LookupError("inside")

    with pytest.raises(LookupError, match="inside"), unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)


def raised(error: BaseException, *, while_handling: BaseException | None = None) -> BaseException:
    """Return *error* after it was raised, perhaps while another one was dealt with, and cut off from it."""
    try:
        try:
            if while_handling is not None:
                raise while_handling
        finally:
            raise error from None
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught


def test_a_group_of_one_and_the_same_error_consists_of_it() -> None:
    error = ValueError()
    assert consists_of(error, error)
    assert consists_of(ExceptionGroup("o", [error, ExceptionGroup("i", [error])]), error)
    assert not consists_of(ExceptionGroup("o", [error, ValueError()]), error)
    assert not consists_of(error, None)


def test_an_error_is_because_of_what_it_was_raised_for() -> None:
    wrapped = raised(ValueError(), while_handling=raised(KeyError(), while_handling=LookupError()))
    assert is_because_of(wrapped, LookupError)
    assert is_because_of(BaseExceptionGroup("g", [wrapped, raised(KeyError())]), LookupError)
    assert is_because_of(raised(ValueError(), while_handling=ExceptionGroup("g", [KeyError()])), KeyError)
    assert not is_because_of(BaseExceptionGroup("g", [wrapped, ValueError()]), LookupError)
    assert not is_because_of(raised(ValueError()), LookupError)


def test_errors_that_were_raised_for_each_other_have_an_end() -> None:
    one, other = ValueError(), TypeError()
    one.__cause__, other.__cause__ = other, one
    assert not is_because_of(one, LookupError)
