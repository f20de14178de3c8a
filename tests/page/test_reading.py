"""What is written on the chat page is text and fits, and can be reached without a mouse and without eyes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.browser import Visitor, expect

if TYPE_CHECKING:
    from page.conftest import Visit

pytestmark = [pytest.mark.needs_browser, pytest.mark.slow]
MARKUP = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><b id=bold>bold</b>'
LONG = "pneumono" * 60 + "\n  indented\n\n" + "a line of ordinary words that has to be broken somewhere " * 6


# --- What is written is text, and fits ---


async def test_markup_in_messages_and_answers_is_text(visitor: Visitor) -> None:
    await visitor.begin(MARKUP, agent="mirror")
    await expect(visitor.answers).to_have_text([MARKUP])
    await expect(visitor.said).to_have_text([MARKUP])
    await visitor.page.locator("summary", has_text="data-note").click()
    await expect(visitor.page.locator(".aside pre").last).to_contain_text("<script>")
    await visitor.page.reload()
    await expect(visitor.answers).to_have_text([MARKUP])
    assert await visitor.page.locator("main img, main script, main b").count() == 0
    assert await visitor.page.evaluate("window.pwned") is None
    await visitor.shoot("markup")


async def test_a_window_of_360_pixels_shows_everything_without_scrolling_sideways(come: Visit) -> None:
    visitor = await come(viewport={"width": 360, "height": 640})
    await visitor.begin(LONG, agent="mirror")
    await expect(visitor.answers).to_have_text([LONG.strip()], use_inner_text=True)
    await visitor.button("Runs").click()
    await expect(visitor.page.locator("#run-rows li")).to_have_count(1)
    await expect(visitor.button("↓ Latest")).to_be_hidden()
    assert await visitor.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await visitor.page.evaluate("document.getElementById('scroll').scrollWidth <= innerWidth")
    await visitor.shoot("long-360")
    await visitor.button("Conversations").click()
    await expect(visitor.page.get_by_role("link", name="New conversation")).to_be_visible()
    await visitor.shoot("list-360")
    await visitor.page.keyboard.press("Escape")
    await expect(visitor.page.get_by_role("link", name="New conversation")).to_be_hidden()


async def test_who_reads_further_up_is_left_there(visitor: Visitor) -> None:
    await visitor.begin("\n".join(f"line {number}" for number in range(80)), agent="mirror")
    await expect(visitor.answers).to_have_count(1)
    box = visitor.page.locator("#scroll")
    await expect(visitor.button("↓ Latest")).to_be_hidden()
    await box.evaluate("box => box.scrollTo(0, 0)")
    await expect(visitor.button("↓ Latest")).to_be_visible()
    await visitor.button("Answer again").evaluate("button => button.click()")
    await expect(visitor.page.locator(".turn")).to_have_count(2)
    await expect(visitor.answers).to_have_count(1)
    assert await box.evaluate("box => box.scrollTop") == 0
    await visitor.shoot("further-up")
    await visitor.button("↓ Latest").click()
    await expect(visitor.button("↓ Latest")).to_be_hidden()


# --- Without a mouse, and without eyes ---


async def test_everything_can_be_reached_with_the_keyboard(visitor: Visitor) -> None:
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    await visitor.page.locator("#skip").focus()
    await visitor.shoot("focus")
    reached = []
    for _ in range(8):
        await visitor.page.keyboard.press("Tab")
        reached.append(await visitor.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    hello, remove = "helloecho · ", "✕"
    assert reached[0] == "new"
    assert reached[1].startswith(hello)
    assert reached[2:] == [remove, "show-runs", "close-session", "scroll", "Answer again", "message"]
    await visitor.page.locator("#skip").focus()
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.message).to_be_focused()


async def test_shift_and_enter_begin_a_new_line(visitor: Visitor) -> None:
    await visitor.begin("hello")
    await visitor.message.press_sequentially("one")
    await visitor.message.press("Shift+Enter")
    await visitor.message.press_sequentially("two")
    await expect(visitor.message).to_have_value("one\ntwo")


async def test_screen_readers_hear_an_answer_once_and_whole(visitor: Visitor) -> None:
    await visitor.begin("hello")
    live = visitor.page.locator("[aria-live=polite]")
    await expect(live).to_have_text("The agent answered: you said: hello")
    await visitor.page.reload()
    await expect(visitor.answers).to_have_count(1)
    await expect(live).to_have_text("")
