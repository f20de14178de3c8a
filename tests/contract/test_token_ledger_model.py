"""Random calls to a ledger of one-time tokens, compared with a dictionary. Some come in crowds."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import strategies as st
from hypothesis.stateful import rule

from contract.adapters import Case, cases_with
from contract.machines import AdapterMachine, run_machine
from contract.makers import ENV_A, ENV_B, MILLISECOND, at_once
from sessions_core.domain.environment import Environment

environments = st.sampled_from([ENV_A, ENV_B])
hashes = st.sampled_from("abcd")
milliseconds = st.integers(-1, 4)


class TokenLedgerMachine(AdapterMachine):
    def __init__(self, case: Case, portal: BlockingPortal) -> None:
        super().__init__(case, portal)
        assert self.adapters.token_ledger is not None
        self.ledger = self.adapters.token_ledger
        self.used: dict[tuple[str, str], datetime] = {}

    @rule(environment=environments, token=hashes, left=milliseconds)
    def consume(self, environment: Environment, token: str, left: int) -> None:
        ends_at = self.clock.now() + left * MILLISECOND
        is_first = self._is_unused(environment, token)
        if is_first:
            self.used[environment.id, token] = ends_at
        assert self.answer(self.ledger.consume, environment.id, token, ends_at) == is_first

    @rule(environment=environments, token=hashes, left=st.integers(1, 4), crowd=st.integers(2, 6))
    def consume_at_once(self, environment: Environment, token: str, left: int, crowd: int) -> None:
        ends_at = self.clock.now() + left * MILLISECOND
        is_first = self._is_unused(environment, token)
        if is_first:
            self.used[environment.id, token] = ends_at
        call = partial(self.ledger.consume, environment.id, token, ends_at)
        assert sum(self.answer(at_once, [call] * crowd)) == is_first

    def _is_unused(self, environment: Environment, token: str) -> bool:
        until = self.used.get((environment.id, token))
        return until is None or until <= self.clock.now()

    @rule(by=st.integers(1, 3))
    def move_the_clock(self, by: int) -> None:
        self.clock.advance(by * MILLISECOND)


@pytest.mark.parametrize("subject", cases_with(["token_ledger"], backends=["asyncio"]), ids=str)
def test_a_ledger_of_tokens_does_what_a_dictionary_does(subject: Case) -> None:
    run_machine(TokenLedgerMachine, subject)
