"""The common part of the models: one adapter, and calls to it from Hypothesis' synchronous rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from contract.adapters import Adapters, Case
from sessions_core.errors import SessionsError
from sessions_core.testing import ManualClock

HEALTH: Final = (HealthCheck.too_slow, HealthCheck.filter_too_much)


class AdapterMachine(RuleBasedStateMachine):
    """Has the adapters of one case over a fresh storage, for one example."""

    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.portal = portal
        self._opened = portal.wrap_async_context_manager(case.technology.open(self.clock))
        self.adapters: Adapters = self._opened.__enter__()

    def teardown(self) -> None:
        self._opened.__exit__(None, None, None)

    def answer(self, call: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
        """Return the answer of a call, or the class of the error it raised on purpose."""
        try:
            return self.portal.call(partial(call, *arguments, **options))
        except SessionsError as error:
            return type(error)


def run_machine(
    machine: Callable[[Case, BlockingPortal], AdapterMachine], case: Case, *, examples: int | None = None
) -> None:
    """Run random examples of *machine* against the adapters of *case*, as many as its technology bears if not said."""
    modest = settings(
        max_examples=examples or case.technology.examples, stateful_step_count=30, suppress_health_check=HEALTH
    )
    with start_blocking_portal(case.backend) as portal:
        # Typed as a class, but only ever called.
        factory = cast("type[RuleBasedStateMachine]", partial(machine, case, portal))
        run_state_machine_as_test(factory, settings=modest)
