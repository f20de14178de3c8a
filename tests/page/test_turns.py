"""What people do with a turn on the chat page: stop it, have it answered again, decide what it asks."""

from __future__ import annotations

import pytest

from harness.browser import Visitor, expect
from harness.server import ServerProcess

pytestmark = [pytest.mark.needs_browser, pytest.mark.slow]


# --- Stopping, and asking again ---


async def test_escape_stops_an_answer(visitor: Visitor) -> None:
    await visitor.begin("slow and steady")
    await expect(visitor.answers).to_contain_text(" 5")
    await visitor.message.press("Escape")
    await expect(visitor.page.locator(".state")).to_have_text("Stopped")
    await expect(visitor.button("Stop")).to_be_hidden()
    await visitor.shoot("stopped")
    await expect(visitor.answers).not_to_contain_text(" 39")
    await visitor.say("go on")
    await expect(visitor.answers.last).to_have_text("you said: go on")
    await visitor.page.reload()
    await expect(visitor.page.locator(".state").first).to_have_text("Stopped")


async def test_the_stop_button_stops_too(visitor: Visitor) -> None:
    await visitor.begin("slow and steady")
    await expect(visitor.answers).to_contain_text(" 3")
    await visitor.button("Stop").click()
    await expect(visitor.page.locator(".state")).to_have_text("Stopped")


async def test_an_answer_given_again_takes_the_place_of_the_first(visitor: Visitor) -> None:
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    for number in (2, 3):
        await visitor.button("Answer again").click()
        await expect(visitor.page.locator(".turn")).to_have_count(number)
        await expect(visitor.answers).to_have_text(["you said: hello"])
    await expect(visitor.said).to_have_text(["hello"])


# --- Being asked ---


async def test_a_question_is_answered_with_a_button_the_next_day(visitor: Visitor, server: ServerProcess) -> None:
    await visitor.begin("raise it", agent="guard")
    await expect(visitor.page.locator(".question")).to_have_text("Raise the bridge?")
    await visitor.shoot("asked")
    await visitor.button("Runs").click()
    await expect(visitor.page.locator("#run-rows li .badge")).to_have_text(["completed"])
    visitor.lost = True
    assert server.stop() == 0
    server.start()
    await visitor.page.goto("about:blank")
    await visitor.open()
    await visitor.page.get_by_role("link", name="raise it").click()
    await visitor.button("yes").click()
    await expect(visitor.answers.last).to_have_text("Done: the bridge is up.")
    await expect(visitor.said).to_have_text(["raise it", "yes"])
    await expect(visitor.button("yes")).to_be_hidden()
    await visitor.shoot("approved")


@pytest.mark.parametrize(("word", "outcome"), [("yes", "approved"), ("no", "denied")])
async def test_the_bundled_approval_is_answered_by_buttons(visitor: Visitor, word: str, outcome: str) -> None:
    await visitor.begin("raise the bridge", agent="approval")
    await expect(visitor.page.locator(".question")).to_have_text("May I go on with: raise the bridge?")
    await visitor.shoot("bundled-asked")
    await visitor.button(word).click()
    await expect(visitor.page.locator(".outcome").last).to_have_text(outcome)
    await expect(visitor.answers.last).to_contain_text("raise the bridge")
    await expect(visitor.button("yes")).to_be_hidden()
    await visitor.shoot(f"bundled-{outcome}")


async def test_runs_are_shown_as_they_change(visitor: Visitor) -> None:
    await visitor.begin("raise it", agent="guard")
    await visitor.button("Runs").click()
    rows = visitor.page.locator("#run-rows li")
    await expect(rows.locator(".badge")).to_have_text(["completed"])
    await visitor.button("no").click()
    await expect(visitor.answers.last).to_have_text("Left as it is.")
    await expect(rows.locator(".badge")).to_have_text(["completed", "completed"])
    await expect(rows.locator(".why").first).to_contain_text("continuation")
    await visitor.shoot("runs")
    await visitor.button("Runs").click()
    await expect(rows.first).to_be_hidden()
