"""An S2 server that is killed with SIGKILL while many write."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import attrs
import pytest

from adapters.s2.conftest import config
from contract.makers import Call, at_once, make_channel, record
from harness.s2 import S2Server
from sessions_adapters.s2 import S2ChannelLog, open_basin
from sessions_core.domain.channel import Io, Record
from sessions_core.domain.guard import UNTOUCHED
from sessions_core.errors import ChannelUnavailableError

WRITERS = 16
APPENDS = 30
KILLS = 3


CHANNELS = [make_channel(f"{number}", io=Io.OUT) for number in range(4)]
PER_CHANNEL = WRITERS // len(CHANNELS) * APPENDS


@attrs.define
class Load:
    """Writers and a follower that go on however often the log is lost, and what they were told.

    Attributes:
        acknowledged: The seq of each text, by channel.
        followed: What the follower of the first channel has seen.
    """

    log: S2ChannelLog
    acknowledged: list[dict[str, int]] = attrs.field(factory=lambda: [{} for _ in CHANNELS])
    followed: list[Record] = attrs.field(factory=list)

    async def write(self, writer: int) -> None:
        channel = writer % len(CHANNELS)
        for number in range(APPENDS):
            text = f"{writer}.{number}"
            while text not in self.acknowledged[channel]:
                with suppress(ChannelUnavailableError):
                    (place,) = await self.log.append(CHANNELS[channel], [record(text, text)], guard=UNTOUCHED)
                    self.acknowledged[channel][text] = place.seq

    async def follow(self) -> None:
        while len(self.followed) < PER_CHANNEL:
            with suppress(ChannelUnavailableError):
                async with self.log.follow(CHANNELS[0], len(self.followed)) as batches:
                    while len(self.followed) < PER_CHANNEL:
                        self.followed.extend((await anext(batches)).records)

    async def kill(self, server: S2Server) -> None:
        for count in range(1, KILLS + 1):
            while sum(map(len, self.acknowledged)) < count * WRITERS * APPENDS // (KILLS + 1):
                await anyio.sleep(0.005)
            server.kill()
            await anyio.to_thread.run_sync(server.start)


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.needs_s2
async def test_what_was_acknowledged_survives_kills_of_the_server_and_is_stored_once(tmp_path: Path) -> None:
    with S2Server(tmp_path, root=tmp_path / "data") as server:
        options = config(server.endpoint, timeout=timedelta(seconds=1), patience=timedelta(seconds=5))
        async with open_basin(options) as basin:
            load = Load(S2ChannelLog(basin))
            with anyio.fail_after(50):
                calls: list[Call] = [partial(load.write, number) for number in range(WRITERS)]
                calls += [partial(load.kill, server), load.follow]
                await at_once(calls)
            stored = [(await load.log.read(channel, 0, 10_000)).records for channel in CHANNELS]
    for found, acknowledged in zip(stored, load.acknowledged, strict=True):
        assert len(found) == PER_CHANNEL
        assert {entry.body.decode(): entry.seq for entry in found} == acknowledged
    assert load.followed == list(stored[0])
