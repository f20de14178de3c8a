"""Who may have the chat page, and what it never holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.browser import SLOWLY, Visitor, expect
from harness.server import KEY, ServerProcess

if TYPE_CHECKING:
    from page.conftest import Visit

pytestmark = [pytest.mark.needs_browser, pytest.mark.slow]


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
    await expect(visitor.answers).to_have_text([SLOWLY], timeout=60_000)  # it comes back every second of the answer
    await visitor.say("still here")
    await expect(visitor.answers.last).to_have_text("you said: still here")


async def test_the_page_never_holds_a_key(visitor: Visitor, server: ServerProcess) -> None:
    seen: list[str] = []
    visitor.page.on("request", lambda request: seen.append(str(request.headers)))
    await visitor.begin("hello")
    await expect(visitor.answers).to_have_text(["you said: hello"])
    assert seen
    assert not any("tr_dev_" in headers for headers in seen)
