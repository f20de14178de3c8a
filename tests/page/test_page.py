"""The chat page in a real browser: what people do with it, and what happens to it meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from harness.browser import Visitor
from harness.server import KEY, ServerProcess

if TYPE_CHECKING:
    from page.conftest import Visit

pytestmark = [pytest.mark.needs_browser, pytest.mark.slow]

SLOWLY = "you said: slow and steady" + "".join(f" {number}" for number in range(1, 40))
MARKUP = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script><b id=bold>bold</b>'
LONG = "pneumono" * 60 + "\n  indented\n\n" + "a line of ordinary words that has to be broken somewhere " * 6


def expect(thing: Any) -> Any:
    """Wait for what is said about *thing*, up to 15 seconds."""
    from playwright.async_api import expect as expect_soon

    expect_soon.set_options(timeout=15_000)
    return expect_soon(thing)


async def wait_for_id(visitor: Visitor) -> str:
    await expect(visitor.said.first).to_be_visible()
    address: str = visitor.page.url
    return address.partition("#/s/")[2]


# --- Talking ---


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


async def test_a_second_tab_and_another_browser_see_the_same_stream(visitor: Visitor, come: Visit) -> None:
    await visitor.begin("hello")
    name = await wait_for_id(visitor)
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
    await second.open(f"/#/s/{await wait_for_id(visitor)}")
    await expect(second.answers).to_contain_text(" 3")
    await visitor.say("and then?")
    await expect(second.said).to_have_text(["slow and steady", "and then?"])
    await expect(second.page.locator(".state").last).to_have_text("Waits for the answer before it")
    await second.shoot("queued")


async def test_five_tabs_leave_room_for_a_message(visitor: Visitor, come: Visit) -> None:
    await visitor.begin("hello")
    name = await wait_for_id(visitor)
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
    await other.open(f"/#/s/{await wait_for_id(visitor)}")
    await expect(other.answers).to_have_text(["you said: hello"])
    await look(visitor, "hidden")
    await visitor.page.clock.run_for(21_000)
    await other.say("are you there?")
    await expect(other.answers).to_have_count(2)
    await visitor.page.clock.run_for(5_000)
    await expect(visitor.answers).to_have_count(1)
    await look(visitor, "visible")
    await expect(visitor.answers).to_have_text(["you said: hello", "you said: are you there?"])


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


async def look(visitor: Visitor, state: str) -> None:
    """Make the page believe that it is looked at, or that it is not."""
    await visitor.page.evaluate(
        """(state) => {
            Object.defineProperty(document, "visibilityState", { get: () => state, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )


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


# --- Ends ---


async def test_a_closed_session_can_be_read_and_not_written(visitor: Visitor, come: Visit) -> None:
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    second = await come(beside=visitor)
    await second.open(f"/#/s/{await wait_for_id(visitor)}")
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


# --- Who may ---


async def test_another_name_for_this_machine_gets_no_page(visitor: Visitor, server: ServerProcess) -> None:
    visitor.lost = True
    answer = await visitor.page.goto(f"http://rebound.test:{server.port}/")
    assert answer is not None
    assert answer.status == 404


async def test_another_page_can_create_nothing(visitor: Visitor, server: ServerProcess) -> None:
    visitor.lost = True
    await visitor.page.goto(f"http://rebound.test:{server.port}/healthz")
    outcome = await visitor.page.evaluate(
        """async (address) => {
            const body = JSON.stringify({task: "echo"});
            const results = [];
            for (const [mode, type] of [["cors", "application/json"], ["no-cors", "text/plain"]]) {
                const sent = fetch(address + "/page/sessions", {method: "POST", mode, headers: {"Content-Type": type}, body});
                results.push(await sent.then((answer) => answer.type, () => "refused"));
            }
            return results;
        }""",
        server.address,
    )
    visitor.complaints.clear()  # The browser itself complains about the attempts.
    assert outcome[0] == "refused"
    listed = await visitor.page.context.request.get(
        f"{server.address}/api/v1/sessions", headers={"Authorization": f"Bearer {KEY}"}
    )
    assert (await listed.json())["data"] == []


async def test_a_token_that_is_over_is_renewed(come: Visit, server: ServerProcess) -> None:
    server.stop()
    server.environment["SESSIONS_PUBLIC_TOKEN_LIFETIME"] = "1"
    server.start()
    visitor = await come()
    visitor.lost = True
    await visitor.begin("slow and steady")
    await expect(visitor.answers).to_have_text([SLOWLY])
    await visitor.say("still here")
    await expect(visitor.answers.last).to_have_text("you said: still here")


async def test_the_page_never_holds_a_key(visitor: Visitor, server: ServerProcess) -> None:
    seen: list[str] = []
    visitor.page.on("request", lambda request: seen.append(str(request.headers)))
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    assert seen
    assert not any("tr_dev_" in headers for headers in seen)
