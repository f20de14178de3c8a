"""What lies in Redis: one set per channel under a key that Redis Cluster can place, with a time to live."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis, RedisCluster
from redis.crc import key_slot

from harness.redis import RedisServer
from sessions_adapters.redis import RedisConfig, RedisWaitRegistry
from sessions_adapters.redis.wait_registry import GRACE
from sessions_core.domain.channel import Channel, Io
from sessions_core.domain.ids import AddressingKey, EnvironmentId, WaitpointId
from sessions_core.errors import InvalidError

pytestmark = pytest.mark.needs_redis

ONE, TWO = WaitpointId("waitpoint_one"), WaitpointId("waitpoint_two")
WEEK = timedelta(days=7)
texts = st.text(st.sampled_from("a:{}%é\ud800\U0001f980"), max_size=4) | st.text(max_size=8)
channels = st.builds(
    Channel, texts.map(EnvironmentId), texts.map(AddressingKey), st.sampled_from(Io), st.none() | texts
)


def make_channel(key: str = "key", env: str = "env_a") -> Channel:
    return Channel(EnvironmentId(env), AddressingKey(key), Io.IN)


def key_of(channel: Channel) -> str:
    client: Any = None
    return RedisWaitRegistry(client).key(channel)


@given(channels, channels)
def test_different_channels_have_different_keys(one: Channel, other: Channel) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)


@given(channels)
def test_a_key_is_plain_text_with_one_hash_tag_that_holds_all_of_the_channel(channel: Channel) -> None:
    key = key_of(channel)
    tag = re.fullmatch(r"sessions:waits:\{([^{}]+)\}", key)
    assert tag is not None
    assert key.isascii()
    assert key_slot(key.encode()) == key_slot(tag[1].encode())


def test_a_key_can_be_read_by_people() -> None:
    assert key_of(make_channel("chat-1")) == "sessions:waits:{env_a:chat-1:in}"


async def test_the_longest_wait_decides_how_long_members_are_kept(registry: RedisWaitRegistry, admin: Redis) -> None:
    channel = make_channel()

    async def kept() -> timedelta:
        return timedelta(milliseconds=await admin.pttl(registry.key(channel))) - GRACE

    async def register(member: WaitpointId, keep: timedelta) -> None:
        await registry.register(channel, member, keep)

    await register(ONE, timedelta(hours=1))
    assert timedelta(minutes=59) < await kept() <= timedelta(hours=1)
    await register(TWO, timedelta(seconds=1))
    assert timedelta(minutes=59) < await kept() <= timedelta(hours=1)
    await register(ONE, WEEK)
    assert timedelta(days=6) < await kept() <= WEEK


async def test_nothing_is_left_of_a_channel_that_nobody_waits_on(registry: RedisWaitRegistry, admin: Redis) -> None:
    for leave in (registry.drain, lambda channel: registry.unregister(channel, ONE)):
        await registry.register(make_channel(), ONE, WEEK)
        await leave(make_channel())
        assert await admin.dbsize() == 0


async def test_a_client_that_decodes_does_as_well(server: RedisServer) -> None:
    async with Redis(unix_socket_path=str(server.socket), decode_responses=True) as client:
        registry = RedisWaitRegistry(client)
        await registry.register(make_channel(), ONE, WEEK)
        assert list(await registry.drain(make_channel())) == [ONE]


async def test_a_script_that_redis_has_forgotten_is_sent_again(registry: RedisWaitRegistry, admin: Redis) -> None:
    for _ in range(2):
        await admin.script_flush()
        await registry.register(make_channel(), ONE, WEEK)
        await registry.register(make_channel(), TWO, WEEK)
        assert set(await registry.drain(make_channel())) == {ONE, TWO}


async def test_a_script_is_sent_only_once(registry: RedisWaitRegistry, admin: Redis) -> None:
    for number in range(5):
        await registry.register(make_channel(), WaitpointId(f"waitpoint_{number}"), WEEK)
    assert (await admin.info("commandstats"))["cmdstat_eval"]["calls"] == 1


@pytest.mark.parametrize("url", ["localhost:6379", "user:secret@host", "http://user:secret@host", ""])
def test_an_address_of_another_kind_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidError, match="must begin with") as caught:
        RedisConfig(url=url)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(RedisConfig(url="redis://user:secret@host"))


async def test_a_client_that_was_given_is_never_closed(server: RedisServer, admin: Redis) -> None:
    await RedisWaitRegistry(admin).register(make_channel(), ONE, WEEK)
    async with RedisWaitRegistry.connect(RedisConfig(url=server.url)) as registry:
        assert list(await registry.drain(make_channel())) == [ONE]
    assert await admin.ping()
    assert len(await admin.client_list()) == 1, "and one of our own always is"


# --- Redis Cluster ---


async def test_it_works_on_redis_cluster(cluster: RedisCluster) -> None:
    registry = RedisWaitRegistry(cluster, timeout=timedelta(seconds=10))
    channels = [make_channel(f"key {number}") for number in range(20)]
    for channel in channels:
        await registry.register(channel, ONE, WEEK)
        await registry.register(channel, TWO, WEEK)
        await registry.unregister(channel, ONE)
    assert [list(await registry.drain(channel)) for channel in channels] == [[TWO]] * 20
