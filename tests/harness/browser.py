"""Headless Chromium, driven by Playwright: people in front of the chat page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import attrs

from harness.services import CannotStartError, Service

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser, ConsoleMessage, Locator, Page

PROGRAM: Final = "SESSIONS_TEST_BROWSER"
"""Names another browser than the Chromium on the path."""
KNOWN: Final = ("chromium", "chromium-browser", "google-chrome")
OPTIONS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.test 127.0.0.1",
)
NOT_REACHED: Final = "Failed to load resource"
SLOWLY: Final = "you said: slow and steady" + "".join(f" {number}" for number in range(1, 40))
"""What the agents of these tests answer to ``slow and steady``, piece by piece."""


@contextmanager
def _found() -> Iterator[str]:
    if find_spec("playwright") is None:
        raise CannotStartError("playwright is not installed: make browser")
    program = os.environ.get(PROGRAM) or next(filter(None, map(shutil.which, KNOWN)), None)
    if program is None:
        raise CannotStartError("there is no Chromium: make browser")
    yield program


CHROMIUM: Final = Service(_found)
"""Its value is the program; who wants a browser launches one on the event loop of its own."""


@attrs.define(eq=False, slots=False)  # Playwright puts a mark on what owns the methods that it calls.
class Visitor:
    """Somebody with one tab on the chat page.

    Attributes:
        complaints: What the browser's console said: errors of scripts, breaches of the content security policy.
        lost: Set when requests are expected to fail, as while the server is down.
    """

    page: Page
    address: str
    shots: Path
    complaints: list[str] = attrs.field(factory=list)
    lost: bool = False

    def __attrs_post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        expected = self.lost and message.text.startswith(NOT_REACHED)
        if message.type in ("error", "warning") and not expected:
            self.complaints.append(message.text)

    async def open(self, path: str = "/") -> None:
        """Go to a path of the server."""
        await self.page.goto(self.address + path)

    async def begin(self, text: str, agent: str = "echo") -> None:
        """Choose an agent and say the first thing."""
        await self.open()
        await self.page.get_by_role("radio", name=agent).check()
        await self.say(text)

    async def say(self, text: str) -> None:
        """Type a message and press Enter."""
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.get_by_label("Message", exact=True).press("Enter")

    @property
    def message(self) -> Locator:
        """The message box."""
        return self.page.get_by_label("Message", exact=True)

    @property
    def said(self) -> Locator:
        """What users have said."""
        return self.page.locator(".bubble")

    async def wait_for_id(self) -> str:
        """Return the id of the session that is shown, once something has been said in it."""
        await expect(self.said.first).to_be_visible()
        address: str = self.page.url
        return address.partition("#/s/")[2]

    @property
    def answers(self) -> Locator:
        """The text parts of the agent's answers."""
        return self.page.locator(".answer .text")

    def button(self, name: str) -> Locator:
        """Return the button with this name."""
        return self.page.get_by_role("button", name=name, exact=True)

    async def shoot(self, name: str) -> None:
        """Take a picture."""
        await self.page.screenshot(path=self.shots / f"{name}.png", animations="disabled")


async def visit(browser: Browser, address: str, shots: Path, **context: Any) -> Visitor:
    """Open a tab in a browser profile of its own."""
    profile = await browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **context})
    return Visitor(await profile.new_page(), address, shots)


def expect(thing: Any) -> Any:
    """Wait for what is said about *thing*, up to 15 seconds."""
    from playwright.async_api import expect as expect_soon

    expect_soon.set_options(timeout=15_000)
    return expect_soon(thing)
