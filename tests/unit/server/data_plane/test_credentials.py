"""Direct writers' tokens: how long they work, and what is none although a root key has signed it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest

from sessions_adapters.memory import InMemoryEnvironmentStore, InMemoryTokenLedger
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.direct import FIRST_TENURE, Tenure
from sessions_core.domain.environment import Environment, RootKey
from sessions_core.domain.ids import AddressingKey, EnvironmentId
from sessions_core.testing import ManualClock
from sessions_server.auth import tokens
from sessions_server.auth.authenticator import KEY_SECONDS, Authenticator
from sessions_server.data_plane.credentials import DirectTokens, SignedDirectWrites, is_direct

ONE = EnvironmentId("env_1")
KEY, NEW_KEY = ("tr_dev_" + letter * 24 for letter in "ab")
HOUR = timedelta(hours=1)
OUT, IN = (Channel(ONE, AddressingKey("chat:1"), io) for io in (Io.OUT, Io.IN))


@attrs.define(eq=False)
class Plane:
    """The tokens of one server, whose time stands still."""

    clock: ManualClock = attrs.field(factory=ManualClock)
    passed: float = 0.0
    store: InMemoryEnvironmentStore = attrs.field(init=False)
    tokens: DirectTokens = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = InMemoryEnvironmentStore(self.clock)
        ledger = InMemoryTokenLedger(self.clock)
        auth = Authenticator(environments=self.store, ledger=ledger, clock=self.clock, monotonic=lambda: self.passed)
        self.tokens = DirectTokens(auth, self.clock)

    async def rotate(self, grace: timedelta) -> None:
        """Rotate the root key, and let everybody hear of it."""
        await self.store.rotate_root_key(ONE, NEW_KEY, grace=grace)
        self.pass_by(timedelta(seconds=KEY_SECONDS + 0.1))

    def pass_by(self, time: timedelta) -> None:
        """Let time pass by."""
        self.clock.advance(time)
        self.passed += time.total_seconds()

    async def works(self, token: str) -> bool:
        """Tell whether *token* is one."""
        return await self.tokens.find(token) is not None


@pytest.fixture
async def plane() -> Plane:
    made = Plane()
    await made.store.create(Environment(id=ONE), KEY)
    return made


async def test_a_token_is_for_its_channel_and_tenure(plane: Plane) -> None:
    tenure = Tenure(run_version=3, last_epoch=7)
    out, into = [await plane.tokens.find(await plane.tokens.sign(channel, tenure, HOUR)) for channel in (OUT, IN)]
    assert out is not None
    assert into is not None
    assert (out.channel, out.tenure) == (OUT, tenure)
    assert (into.channel, into.tenure) == (IN, None)


async def names_of(plane: Plane, *wanted: tuple[Channel, str | None]) -> list[str]:
    """Return as what direct writers' tokens are counted that are issued one second after the other."""
    names: list[str] = []
    for channel, asker in wanted:
        plane.pass_by(timedelta(seconds=1))
        writes = SignedDirectWrites(tokens=plane.tokens, address="http://here", lifetime=HOUR, counted_as=asker)
        found = await plane.tokens.find((await writes.issue(channel, tenure=FIRST_TENURE)).token)
        assert found is not None
        names.append(found.counted_as)
    return names


async def test_those_of_a_channel_are_counted_together(plane: Plane) -> None:
    elsewhere = Channel(ONE, AddressingKey("chat:2"), Io.OUT)
    names = await names_of(plane, (OUT, None), (OUT, None), (IN, None), (elsewhere, None))
    assert names[0] == names[1]
    assert len(set(names)) == 3


async def test_those_that_a_token_asked_for_are_counted_as_that_token(plane: Plane) -> None:
    assert await names_of(plane, (IN, "asker"), (IN, "other"), (OUT, "asker")) == ["asker", "other", "asker"]


async def test_a_token_of_a_rotated_key_works_through_its_grace_and_not_longer(plane: Plane) -> None:
    token = await plane.tokens.sign(OUT, FIRST_TENURE, timedelta(days=7))
    await plane.rotate(grace=timedelta(hours=24))
    plane.pass_by(timedelta(hours=24) - timedelta(seconds=2))
    assert await plane.works(token)
    plane.pass_by(timedelta(seconds=1))
    assert not await plane.works(token)
    assert await plane.works(await plane.tokens.sign(OUT, FIRST_TENURE, HOUR))


async def test_a_rotation_without_grace_ends_it_within_a_second(plane: Plane) -> None:
    token = await plane.tokens.sign(OUT, FIRST_TENURE, HOUR)
    assert await plane.works(token)
    await plane.rotate(grace=timedelta(0))
    assert not await plane.works(token)


async def test_it_does_not_outlive_what_it_was_asked_for_with(plane: Plane) -> None:
    writes = SignedDirectWrites(tokens=plane.tokens, address="http://here", lifetime=HOUR)
    ends_at = plane.clock.now() + timedelta(seconds=90)
    short = (await writes.issue(OUT, tenure=FIRST_TENURE, ends_at=ends_at)).token
    long = (await writes.issue(OUT, tenure=FIRST_TENURE)).token
    later = (await writes.issue(OUT, tenure=FIRST_TENURE, ends_at=plane.clock.now() + 2 * HOUR)).token
    plane.pass_by(timedelta(seconds=89))
    assert [await plane.works(token) for token in (short, long, later)] == [True, True, True]
    plane.pass_by(timedelta(seconds=1))
    assert [await plane.works(token) for token in (short, long, later)] == [False, True, True]
    plane.pass_by(HOUR)
    assert [await plane.works(token) for token in (long, later)] == [False, False]


@pytest.mark.parametrize(
    "change",
    [
        {"use": "other"},
        {"io": "sideways"},
        {"io": ...},
        {"io": ["out"]},
        {"key": ...},
        {"key": 5},
        {"key": ["chat:1"]},
        {"run": ...},
        {"run": "1"},
        {"run": 1.5},
        {"epoch": ...},
        {"epoch": None},
        {"exp": ...},
        {"exp": "2999"},
        {"exp": 0},
        {"exp": float("nan")},
        {"nbf": 4_000_000_000},
        {"nbf": "soon"},
        {"sub": "env_2"},
    ],
    ids=repr,
)
async def test_what_a_root_key_has_signed_and_is_no_such_token_is_refused(plane: Plane, change: dict[str, Any]) -> None:
    end = int(plane.clock.now().timestamp()) + 600
    good = {"use": "direct", "sub": ONE, "key": "chat:1", "io": "out", "run": 1, "epoch": 1, "exp": end}
    claims = {name: value for name, value in {**good, **change}.items() if value is not ...}
    key = RootKey(value=KEY)
    assert await plane.works(tokens.sign(good, key))
    token = tokens.sign(claims, key)
    assert not await plane.works(token)
    assert is_direct(token) is (claims["use"] == "direct")
