"""The chat page in several tabs and browsers at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harness.browser import SLOWLY, Visitor, expect

if TYPE_CHECKING:
    from page.conftest import Visit

pytestmark = [pytest.mark.needs_browser, pytest.mark.slow]


async def test_a_second_tab_and_another_browser_see_the_same_stream(visitor: Visitor, come: Visit) -> None:
    await visitor.begin("hello")
    name = await visitor.wait_for_id()
    second = await come(beside=visitor)
    stranger = await come()
    for other in (second, stranger):
        await other.open(f"/#/s/{name}")
        await expect(other.answers).to_have_text(["you said: hello"])
    await visitor.say("slow and steady")
    for other in (second, stranger):
        await expect(other.said).to_have_text(["hello", "slow and steady"])
        await expect(other.answers.last).to_contain_text(" 5")
    await expect(visitor.page.locator("#viewers")).to_have_text("open in 2 tabs")
    await second.shoot("second-tab")
    for other in (visitor, second, stranger):
        await expect(other.answers).to_have_text(["you said: hello", SLOWLY])
    await second.page.close()
    await expect(visitor.page.locator("#viewers")).to_have_text("")


async def test_what_one_tab_says_is_seen_in_the_other_before_it_is_answered(visitor: Visitor, come: Visit) -> None:
    await visitor.begin("slow and steady")
    second = await come(beside=visitor)
    await second.open(f"/#/s/{await visitor.wait_for_id()}")
    await expect(second.answers).to_contain_text(" 3")
    await visitor.say("and then?")
    await expect(second.said).to_have_text(["slow and steady", "and then?"])
    await expect(second.page.locator(".state").last).to_have_text("Waits for the answer before it")
    await second.shoot("queued")


async def test_five_tabs_leave_room_for_a_message(visitor: Visitor, come: Visit) -> None:
    await visitor.begin("hello")
    name = await visitor.wait_for_id()
    tabs = [visitor, *[await come(beside=visitor) for _ in range(4)]]
    for tab in tabs[1:]:
        await tab.open(f"/#/s/{name}")
        await expect(tab.answers).to_have_text(["you said: hello"])
    await tabs[-1].say("again")
    for tab in tabs:
        await expect(tab.answers).to_have_text(["you said: hello", "you said: again"])


async def test_a_tab_that_nobody_looks_at_gives_its_connection_back(visitor: Visitor, come: Visit) -> None:
    await visitor.page.clock.install()
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    other = await come()
    await other.open(f"/#/s/{await visitor.wait_for_id()}")
    await expect(other.answers).to_have_text(["you said: hello"])
    await look(visitor, "hidden")
    await visitor.page.clock.run_for(21_000)
    await other.say("are you there?")
    await expect(other.answers).to_have_count(2)
    await visitor.page.clock.run_for(5_000)
    await expect(visitor.answers).to_have_count(1)
    await look(visitor, "visible")
    await expect(visitor.answers).to_have_text(["you said: hello", "you said: are you there?"])


async def test_what_was_taken_off_the_list_stays_off_it_although_another_tab_shows_it(
    visitor: Visitor, come: Visit
) -> None:
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    second = await come(beside=visitor)
    await second.open()
    await second.button("Remove “hello” from this list").click()
    await visitor.say("again")
    await expect(visitor.answers).to_have_text(["you said: hello", "you said: again"])
    for tab in (visitor, second):
        await expect(tab.page.locator("#conversations li")).to_have_count(0)


async def test_a_browser_without_broadcasts_has_the_page_without_the_count_of_tabs(visitor: Visitor) -> None:
    await visitor.page.add_init_script("delete window.BroadcastChannel")
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    await visitor.page.get_by_role("link", name="New conversation").click()
    await visitor.say("again")
    await expect(visitor.answers).to_have_text(["you said: again"])


STORED = [
    {"id": "page_a", "task": "echo", "title": "kept", "at": 1},
    {"id": "page_b", "task": "echo", "title": 5, "at": 1},
    {"id": "page_c", "task": {}, "title": "x", "at": 1},
    {"id": "page_d", "task": "echo", "title": "x", "at": "soon"},
    {"id": "page_e"},
    None,
    7,
]


async def test_what_is_no_entry_of_the_list_in_local_storage_is_passed_over(visitor: Visitor) -> None:
    stored = json.dumps(json.dumps(STORED))
    await visitor.page.add_init_script(f"localStorage.setItem('sessions.conversations', {stored})")
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    await expect(visitor.page.locator("#conversations strong")).to_have_text(["hello", "kept"])


async def look(visitor: Visitor, state: str) -> None:
    """Make the page believe that it is looked at, or that it is not."""
    await visitor.page.evaluate(
        """(state) => {
            Object.defineProperty(document, "visibilityState", { get: () => state, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )
