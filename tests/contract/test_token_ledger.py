"""What every ledger of one-time tokens guarantees."""

from __future__ import annotations

from functools import partial

from contract.makers import ENV_A, ENV_B, MILLISECOND, SECOND, START, at_once
from sessions_core.ports.environment_store import TokenLedger
from sessions_core.testing import ManualClock

UNTIL = START + SECOND


async def test_a_token_is_consumed_once(token_ledger: TokenLedger) -> None:
    assert await token_ledger.consume(ENV_A.id, "hash", UNTIL)
    assert not await token_ledger.consume(ENV_A.id, "hash", UNTIL)
    assert not await token_ledger.consume(ENV_A.id, "hash", UNTIL)


async def test_a_token_stays_consumed_until_it_expires(token_ledger: TokenLedger, clock: ManualClock) -> None:
    await token_ledger.consume(ENV_A.id, "hash", UNTIL)
    clock.advance(SECOND - MILLISECOND)
    for number in range(50):  # others come and go meanwhile
        await token_ledger.consume(ENV_A.id, f"other {number}", clock.now())
    assert not await token_ledger.consume(ENV_A.id, "hash", UNTIL)


async def test_tokens_of_other_environments_and_other_tokens_are_others(token_ledger: TokenLedger) -> None:
    assert await token_ledger.consume(ENV_A.id, "hash", UNTIL)
    assert await token_ledger.consume(ENV_B.id, "hash", UNTIL)
    assert await token_ledger.consume(ENV_A.id, "hash2", UNTIL)


async def test_of_30_concurrent_calls_one_consumes(token_ledger: TokenLedger) -> None:
    consumed = await at_once([partial(token_ledger.consume, ENV_A.id, "hash", UNTIL) for _ in range(30)])
    assert sum(consumed) == 1
