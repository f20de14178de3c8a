"""Names that are joined of an environment's id and a caller's: whatever they are, different channels have different ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_adapters.postgres.announcer import decode, encode
from sessions_adapters.postgres.values import channel_key, key_of
from sessions_adapters.postgres.waiters import waitpoint_key
from sessions_adapters.postgres.waits import MARK
from sessions_adapters.redis import RedisRateLimiter, RedisWaitRegistry
from sessions_adapters.s2.names import stream_name
from sessions_adapters.sqlite.heads import address_of, channel_of
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.ids import AddressingKey, EnvironmentId, WaitpointId
from sessions_core.domain.rate import Bucket, Rate
from sessions_server.data_plane.names import basin_of, parse_stream, stream_of

JOINTS: Final = (":", "/", "%3A", "%2F", "}{")
PIECES: Final = ("a", *JOINTS, "%", "in", "é")
"""What ids are made of: what names are joined with, in all the ways to write it."""


def redis_key(channel: Channel) -> str:
    client: Any = None
    return RedisWaitRegistry(client).key(channel)


def bucket_of(channel: Channel) -> Bucket:
    """Return a bucket whose name is a caller's text."""
    return Bucket(channel.environment_id, f"{channel.io}:{channel.key}", Rate(1, 1))


def redis_bucket(channel: Channel) -> str:
    client: Any = None
    return RedisRateLimiter(client).key(bucket_of(channel))


def notification(channel: Channel) -> str:
    (payload,) = encode("sender", {channel_key(channel): 7})
    assert decode(payload) == {channel_key(channel): 7}
    return payload


def registration(channel: Channel) -> str:
    (payload,) = encode("sender", {MARK + channel_key(channel): 1})
    return payload


def sqlite_address(channel: Channel) -> Hashable:
    address = address_of(channel)
    names = ("environment", "key", "io", "name")
    row: Any = dict(zip(names, address, strict=True))
    assert channel_of(row) == channel
    return address


def data_plane_name(channel: Channel) -> tuple[str, str]:
    stream = stream_of(channel)
    assert parse_stream(stream) == (channel.key, channel.io)
    return basin_of(channel.environment_id), stream


NAMINGS: Final[dict[str, Callable[[Channel], Hashable]]] = {
    "stream of S2": lambda channel: stream_name("prefix/", channel),
    "key of Redis": redis_key,
    "bucket of a limiter": lambda channel: bucket_of(channel).key,
    "bucket in Redis": redis_bucket,
    "key of Postgres": channel_key,
    "payload of NOTIFY": notification,
    "payload of NOTIFY for a wait": registration,
    "address of SQLite": sqlite_address,
    "basin and stream of the data plane": data_plane_name,
    "feed of the hub": lambda channel: channel,
}
texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
channels = st.builds(Channel, texts.map(EnvironmentId), texts.map(AddressingKey), st.sampled_from(Io))
each_naming = pytest.mark.parametrize("name_of", NAMINGS.values(), ids=NAMINGS)


@each_naming
def test_all_channels_with_ids_of_up_to_two_pieces_have_names_of_their_own(
    name_of: Callable[[Channel], Hashable],
) -> None:
    ids = {*PIECES, *("".join(pair) for pair in product(PIECES, PIECES))}
    made = {
        Channel(EnvironmentId(environment), AddressingKey(key), io) for environment, key, io in product(ids, ids, Io)
    }
    assert len({name_of(channel) for channel in made}) == len(made) >= 10_000


@each_naming
@given(environment=texts, head=texts, tail=texts, joint=st.sampled_from(JOINTS), io=st.sampled_from(Io))
def test_nobody_forges_a_name_by_moving_the_joint(
    name_of: Callable[[Channel], Hashable], environment: str, head: str, tail: str, joint: str, io: Io
) -> None:
    one = Channel(EnvironmentId(environment), AddressingKey(f"{head}{joint}{tail}"), io)
    other = Channel(EnvironmentId(f"{environment}{joint}{head}"), AddressingKey(tail), io)
    assert name_of(one) != name_of(other)


parts = st.none() | st.text(max_size=4) | st.text(st.sampled_from(":-0123456789"), max_size=4)


@given(st.lists(parts, max_size=4), st.lists(parts, max_size=4))
def test_different_parts_have_different_keys_however_many_they_are(
    one: list[str | None], other: list[str | None]
) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


@given(channels, texts)
def test_news_of_a_wait_are_never_taken_for_news_of_a_channel(channel: Channel, name: str) -> None:
    told = {channel_key(channel), MARK + channel_key(channel), waitpoint_key(WaitpointId(name))}
    assert len(told) == 3
