"""Credentials of two environments, right and wrong ones, and a store that notes what it is asked about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import jwt
import pytest

from sessions_adapters.memory import InMemoryEnvironmentStore
from sessions_core.domain.environment import KeyGrant, RootKey
from sessions_core.domain.ids import EnvironmentId
from sessions_core.testing import ManualClock
from sessions_server.auth import tokens
from sessions_server.auth.authenticator import Authenticator
from sessions_server.problems import UnauthenticatedError

ONE, TWO = EnvironmentId("env_1"), EnvironmentId("env_2")
KEY, OTHER_KEY, NEW_KEY = ("tr_dev_" + letter * 24 for letter in "abc")
NARROW_KEY = "tr_dev_sk_" + "d" * 24


@attrs.define
class Seconds:
    """A monotonic clock that stands still."""

    value: float = 0.0

    def __call__(self) -> float:
        return self.value


@attrs.define(eq=False)
class NotedStore(InMemoryEnvironmentStore):
    """Takes a moment for each answer, and notes what it was asked for."""

    asked: list[str] = attrs.field(init=False, factory=list)

    async def find_root_keys(self, environment_id: EnvironmentId) -> Sequence[RootKey]:
        self.asked.append(environment_id)
        await anyio.lowlevel.checkpoint()
        return await InMemoryEnvironmentStore.find_root_keys(self, environment_id)

    async def find_grant(self, key: str) -> KeyGrant | None:
        self.asked.append(key)
        await anyio.lowlevel.checkpoint()
        return await InMemoryEnvironmentStore.find_grant(self, key)


def claims(clock: ManualClock, **changes: Any) -> dict[str, Any]:
    now = int(clock.now().timestamp())
    content = {
        "sub": ONE,
        "pub": True,
        "scopes": ["read:sessions:x"],
        "iat": now,
        "exp": now + 600,
        "iss": tokens.ISSUER,
        "aud": tokens.AUDIENCE,
    }
    return {name: value for name, value in {**content, **changes}.items() if value is not ...}


def encode(content: dict[str, Any], key: str = KEY, algorithm: str = "HS256", **header: Any) -> str:
    """Sign as anybody may, right or wrong."""
    signer = jwt.PyJWS()
    secret = key.encode().ljust(64, b"\0")  # HMAC pads with zeros itself; longer ones make no warning.
    return signer.encode(json.dumps(content).encode(), secret, algorithm=algorithm, headers=header)


async def refusal(auth: Authenticator, header: str | None) -> str:
    with pytest.raises(UnauthenticatedError) as caught:
        await auth.authenticate(header)
    assert auth.recall(header) is None
    return caught.value.message
