"""How sessions end on the chat page, and what is said of those that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.browser import Visitor, expect

if TYPE_CHECKING:
    from page.conftest import Visit

pytestmark = [pytest.mark.needs_browser, pytest.mark.slow]


async def test_a_closed_session_can_be_read_and_not_written(visitor: Visitor, come: Visit) -> None:
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    second = await come(beside=visitor)
    await second.open(f"/#/s/{await visitor.wait_for_id()}")
    await visitor.button("Close session").click()
    await visitor.shoot("closing")
    await visitor.button("Keep it open").click()
    await expect(visitor.message).to_be_enabled()
    await visitor.button("Close session").click()
    await visitor.page.get_by_role("dialog").get_by_role("button", name="Close session").click()
    for tab in (visitor, second):
        await expect(tab.page.locator("#closed")).to_have_text("This session is closed: closed on the page.")
        await expect(tab.message).to_be_disabled()
        await expect(tab.button("Close session")).to_be_hidden()
        await expect(tab.button("Answer again")).to_be_hidden()
    await visitor.page.reload()
    await expect(visitor.page.locator("#closed")).to_be_visible()
    await expect(visitor.answers).to_have_text(["you said: hello"])
    await visitor.shoot("closed")


async def test_the_question_whether_to_close_goes_away_with_its_conversation(visitor: Visitor) -> None:
    await visitor.begin("first")
    await expect(visitor.answers).to_have_text(["you said: first"])
    await visitor.page.get_by_role("link", name="New conversation").click()
    await visitor.say("second")
    await expect(visitor.answers).to_have_text(["you said: second"])
    await visitor.button("Close session").click()
    await expect(visitor.page.get_by_role("dialog")).to_be_visible()
    await visitor.page.go_back()
    await expect(visitor.page.get_by_role("dialog")).to_be_hidden()
    await visitor.page.go_back()
    await expect(visitor.answers).to_have_text(["you said: first"])
    await visitor.say("still open")
    await expect(visitor.answers).to_have_text(["you said: first", "you said: still open"])


async def test_an_agent_that_fails_says_so_and_can_be_asked_again(visitor: Visitor) -> None:
    await visitor.begin("well?", agent="broken")
    await expect(visitor.page.locator(".turn .error")).to_have_text("The agent failed to answer this message.")
    await expect(visitor.page.locator("body")).not_to_contain_text("secret reason")
    await visitor.shoot("failed")
    await expect(visitor.button("Answer again")).to_be_visible()


async def test_a_conversation_that_does_not_exist_says_so(visitor: Visitor) -> None:
    visitor.lost = True
    await visitor.open("/#/s/page_" + "x" * 32)
    await expect(visitor.page.locator("#problem")).to_have_text("This server knows no such conversation.")
    await expect(visitor.message).to_be_disabled()
    await visitor.page.get_by_role("link", name="New conversation").click()
    await expect(visitor.page.locator("#problem")).to_be_hidden()
    await visitor.say("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
