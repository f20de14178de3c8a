"""What counts as input of a chat, and what its turns are given of it."""

from __future__ import annotations

import json
from typing import Any

from sessions_core import chat
from sessions_core.domain.status import RunStatus
from unit.core.chats import STOP, data_of, said
from unit.core.turns import PLAIN, data_of_type, plain, talk, written
from unit.core.world import World


async def test_other_kinds_are_skipped_and_count_as_read(world: World) -> None:
    others = [
        "plain text",
        "[1]",
        "{}",
        '{"kind": 7}',
        '{"kind": "handover"}',
        '{"kind": "handover-skip"}',
        '{"kind": "message", "payload": {"trigger": "preload"}}',
        '{"kind": "message", "payload": {"trigger": "handover-prepare", "headStartMessages": []}}',
        STOP,
        "[" * 5000,
    ]
    records = await talk(world, plain, *others, said("hello"), *others, pause=0)
    assert written(records) == [*PLAIN, f"turn-complete:{len(others)}"]
    (run,) = world.runs()
    assert run.end is not None
    assert run.end.cursor == 2 * len(others)


async def test_a_message_sent_as_an_object_is_understood_too(world: World) -> None:
    assert chat.Input.parse(json.loads(said("x"))) == chat.Input.parse(said("x"))
    assert chat.Input.parse(None) is None
    assert chat.text_of(None) == ""
    assert (
        chat.text_of({"parts": [{"type": "text", "text": 3}, {"type": "file"}, "x", {"type": "text", "text": "a"}]})
        == "a"
    )


async def test_a_regeneration_finds_the_last_message(world: World) -> None:
    again = said("", trigger="regenerate-message", messageId="a1")
    records = await talk(world, plain, said("first"), said("second"), STOP, again, *["noise"] * 70, again, pause=0.1)
    deltas = [data_of(record)["delta"] for record in records if data_of_type(record) == "text-delta"]
    assert deltas == ["submit-message first", "submit-message second"] + ["regenerate-message second"] * 2


async def test_a_regeneration_looks_for_what_a_user_said(world: World) -> None:
    resolved = {"id": "a", "role": "assistant", "parts": [{"type": "text", "text": "tool results"}]}
    again = said("", trigger="regenerate-message")
    records = await talk(world, plain, said("first"), said("", message=resolved), again)
    deltas = [data_of(record)["delta"] for record in records if data_of_type(record) == "text-delta"]
    assert deltas == ["submit-message first", "submit-message tool results", "regenerate-message first"]


async def test_a_regeneration_without_any_message_still_completes(world: World) -> None:
    records = await talk(world, plain, said("", trigger="regenerate-message"))
    assert written(records) == [*PLAIN, "turn-complete:0"]


async def test_an_action_is_a_turn_with_its_action(world: World) -> None:
    seen: list[Any] = []

    async def acts(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                seen.append((turn.trigger, turn.action, turn.message, turn.text_input))

    records = await talk(world, acts, said("", trigger="action", action={"type": "undo"}))
    assert seen == [("action", {"type": "undo"}, None, "")]
    assert written(records) == ["turn-complete:0"]


async def test_what_clients_send_can_be_made(world: World) -> None:
    made = chat.user_message("hi", metadata={"user": 1})
    assert made["payload"]["message"]["parts"] == [{"type": "text", "text": "hi"}]
    assert made["payload"]["message"]["id"] != chat.user_message("hi")["payload"]["message"]["id"]
    assert chat.user_message("hi", id="u-1") == {
        "kind": "message",
        "payload": {
            "trigger": "submit-message",
            "message": {"id": "u-1", "role": "user", "parts": [{"type": "text", "text": "hi"}]},
        },
    }
    inputs = [made, chat.regenerate_message(), chat.action_message("undo"), chat.stop_message(), chat.close_message()]
    seen: list[Any] = []

    async def notes(run: chat.Run) -> None:
        async for turn in run.turns():
            async with turn:
                seen.append((turn.trigger, turn.text_input, turn.action, turn.metadata))

    await talk(world, notes, *map(json.dumps, inputs))
    expected = [("submit-message", "hi", None, {"user": 1}), ("regenerate-message", "hi", None, None)]
    assert seen == [*expected, ("action", "", "undo", None)]
    assert world.runs()[0].status is RunStatus.COMPLETED_SUCCESSFULLY
