"""What becomes of tests whose system is not there, and that the others share one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from harness import services
from harness.services import REQUIRED, CannotStartError, Service


def missing() -> AbstractContextManager[str]:
    raise CannotStartError("it is not installed")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ExitStack:
    stack = ExitStack()
    monkeypatch.setattr(services, "RUN", stack)
    return stack


def test_a_missing_system_skips_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="it is not installed"):
        services.ensure(Service(missing))


def test_a_missing_system_fails_where_all_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="it is not installed"):
        services.ensure(Service(missing))


def test_a_system_is_started_once_and_ended_with_the_run(run: ExitStack) -> None:
    story: list[str] = []

    @contextmanager
    def system() -> Iterator[str]:
        story.append("start")
        yield "address"
        story.append("end")

    service = Service(system)
    assert story == []
    assert [service.get(), service.get()] == ["address", "address"]
    assert story == ["start"]
    run.close()
    assert story == ["start", "end"]


def test_what_could_not_be_started_is_not_tried_again() -> None:
    tries = 0

    def system() -> AbstractContextManager[str]:
        nonlocal tries
        tries += 1
        return missing()

    service = Service(system)
    for _ in range(3):
        with pytest.raises(CannotStartError):
            service.get()
    assert tries == 1
