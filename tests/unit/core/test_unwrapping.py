import anyio
import pytest

from sessions_core.unwrapping import unwrap, unwrapped


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
