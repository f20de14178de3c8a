"""The chat page in a real browser: a message and its answer, whatever happens to the server meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from harness.browser import SLOWLY, Visitor, expect
from harness.server import ServerProcess

if TYPE_CHECKING:
    from page.conftest import Visit

pytestmark = [pytest.mark.needs_browser, pytest.mark.slow]


@pytest.mark.parametrize(
    ("look", "context"),
    [
        ("light", {}),
        ("dark", {"color_scheme": "dark"}),
        ("narrow", {"viewport": {"width": 390, "height": 780}}),
        ("narrow-dark", {"viewport": {"width": 390, "height": 780}, "color_scheme": "dark"}),
    ],
)
async def test_a_first_message_is_answered(come: Visit, look: str, context: dict[str, Any]) -> None:
    visitor = await come(**context)
    await visitor.open()
    await expect(visitor.page.get_by_role("radio")).to_have_count(5)
    await expect(visitor.message).to_be_focused()
    await visitor.shoot(f"start-{look}")
    await visitor.say("hello\nthere")
    await expect(visitor.answers).to_have_text("you said: hello\nthere", use_inner_text=True)
    await expect(visitor.said).to_have_text("hello\nthere", use_inner_text=True)
    await expect(visitor.page.locator("#connection")).to_have_text("connected")
    await visitor.say("slow and steady")
    await expect(visitor.answers.last).to_contain_text(" 7")
    await visitor.shoot(f"answering-{look}")
    await expect(visitor.answers.last).to_have_text(SLOWLY)
    await expect(visitor.button("Stop")).to_be_hidden()
    await expect(visitor.page).to_have_title("hello · Sessions")
    await visitor.shoot(f"answered-{look}")


async def test_a_reload_in_the_middle_of_an_answer_goes_on(visitor: Visitor) -> None:
    await visitor.begin("slow and steady")
    await expect(visitor.answers).to_contain_text(" 5")
    await visitor.page.reload()
    await expect(visitor.answers).to_contain_text(" 9")
    await visitor.shoot("reloaded")
    await expect(visitor.answers).to_have_text(SLOWLY)
    await expect(visitor.said).to_have_text(["slow and steady"])


async def test_an_answer_is_finished_although_the_server_is_killed_in_the_middle_of_it(
    visitor: Visitor, server: ServerProcess
) -> None:
    await visitor.begin("slow and steady")
    await expect(visitor.answers).to_contain_text(" 5")
    await visitor.page.evaluate("window.notReloaded = true")
    visitor.lost = True
    server.kill()
    await expect(visitor.page.locator("#connection")).to_contain_text("trying again in")
    await visitor.shoot("server-killed")
    server.start()
    await expect(visitor.answers).to_contain_text(" 9")
    await visitor.shoot("server-back")
    await expect(visitor.answers).to_have_text([SLOWLY])
    assert await visitor.page.evaluate("window.notReloaded")
    visitor.lost = False
    await visitor.page.reload()
    await expect(visitor.answers).to_have_text([SLOWLY])


async def test_a_message_that_is_sent_while_the_server_is_down_arrives_once(
    visitor: Visitor, server: ServerProcess
) -> None:
    await visitor.begin("one")
    await expect(visitor.answers).to_have_text(["you said: one"])
    visitor.lost = True
    server.kill()
    await visitor.say("two")
    await expect(visitor.page.locator(".state").last).to_have_text("No answer from the server; trying again")
    await visitor.shoot("not-sent-yet")
    server.start()
    await expect(visitor.answers).to_have_text(["you said: one", "you said: two"])
    await expect(visitor.said).to_have_text(["one", "two"])


async def test_a_request_that_is_never_answered_is_given_up_and_made_again(visitor: Visitor) -> None:
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    asked = anyio.Event()
    await visitor.page.clock.install()
    await visitor.page.route("**/in/records*", lambda _: asked.set(), times=1)
    await visitor.page.reload()
    with anyio.fail_after(15):
        await asked.wait()
    await visitor.page.clock.run_for(61_000)
    await expect(visitor.answers).to_have_text(["you said: hello"])
