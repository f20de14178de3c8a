"""A browser for each module, a server for each test, and visitors whose console has to stay silent."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from harness.browser import CHROMIUM, OPTIONS, Visitor, visit
from harness.server import ServerProcess

if TYPE_CHECKING:
    from playwright.async_api import Browser

SHOTS: Final = "SESSIONS_SCREENSHOTS"
"""Names a folder for the pictures; otherwise they go where the test's other files are."""

Visit = Callable[..., Awaitable[Visitor]]


@pytest.fixture(scope="module")  # Not longer: tests of other modules would run on this loop, whatever they asked for.
async def browser(anyio_backend: str) -> AsyncGenerator[Browser]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=CHROMIUM.get(), args=[*OPTIONS])
        yield running
        await running.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    with ServerProcess(tmp_path / "data", agents="talkers:agents", environment=environment) as running:
        yield running


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get(SHOTS) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
async def come(browser: Browser, server: ServerProcess, shots: Path) -> AsyncGenerator[Visit]:
    """Returns a visitor for each call; none of them may have seen an error when the test ends."""
    visitors: list[Visitor] = []

    async def arrive(beside: Visitor | None = None, **context: Any) -> Visitor:
        if beside is None:
            visitor = await visit(browser, server.address, shots, **context)
        else:
            visitor = Visitor(await beside.page.context.new_page(), server.address, shots)
        visitors.append(visitor)
        return visitor

    yield arrive
    complaints = [complaint for visitor in visitors for complaint in visitor.complaints]
    for context in {visitor.page.context for visitor in visitors}:
        await context.close()
    assert complaints == []


@pytest.fixture
async def visitor(come: Visit) -> Visitor:
    return await come()
