"""Which messages have been answered: what stands on ``out``, turn by turn."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection
from typing import Any

import attrs

from harness.client import Client, delta_of, is_control

POLL_SECONDS = 0.1


@attrs.define(eq=False)
class Answers:
    """Reads a session's ``out`` and sorts it by the messages that its turn-completes name.

    Attributes:
        texts: The text of every turn that was completed, by the seq of the message it covers.
        hand_overs: How many ``upgrade-required`` there are.
        reasons: The reason in every turn-complete that says that the session was closed.
    """

    client: Client
    name: str
    texts: dict[int, list[str]] = attrs.field(init=False, factory=dict)
    hand_overs: int = attrs.field(init=False, default=0)
    reasons: list[str | None] = attrs.field(init=False, factory=list)
    _read_to: int | None = attrs.field(init=False, default=None)
    _text: str = attrs.field(init=False, default="")

    async def read(self) -> None:
        """Take in what has come since the last time."""
        for record in await self.client.records(self.name, "out", self._read_to):
            self._read_to = record["seqNum"]
            self._take(record)

    def _take(self, record: dict[str, Any]) -> None:
        self.hand_overs += is_control(record, "upgrade-required")
        if is_control(record, "turn-complete"):
            headers = dict(record["headers"])
            if headers.get("session-closed") == "true":
                self.reasons.append(headers.get("session-closed-reason"))
            else:
                self.texts.setdefault(int(headers["session-in-event-id"]), []).append(self._text)
            self._text = ""
        else:
            self._text += delta_of({"body": json.dumps({"data": record["data"]})})

    async def until(self, seqs: Collection[int], seconds: float) -> None:
        """Read until all *seqs* have an answer, or the time is over."""
        end = time.monotonic() + seconds
        await self.read()
        while not self.texts.keys() >= set(seqs) and time.monotonic() < end:
            await asyncio.sleep(POLL_SECONDS)
            await self.read()

    def problems(self, sent: dict[int, str]) -> list[str]:
        """Say which of the messages *sent*, by their seq, do not have exactly one answer, and what answers nothing."""
        found = [f"{self.name}: an answer to {seq}, which nobody sent" for seq in self.texts.keys() - sent.keys()]
        for seq, text in sent.items():
            answers = self.texts.get(seq, [])
            if len(answers) != 1 or text not in answers[0]:
                found.append(f"{self.name}: {text!r:.60} at {seq} has {len(answers)} answers: {answers!r:.200}")
        return found


async def problems_of(client: Client, name: str, sent: dict[int, str], seconds: float = 20) -> list[str]:
    """Wait until *sent* is answered, and say what is wrong with that."""
    answers = Answers(client, name)
    await answers.until(sent.keys(), seconds)
    return answers.problems(sent)
