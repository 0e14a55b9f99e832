"""A real browser for tests: Debian's Chromium through Playwright; tests that need it are skipped where it is absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import pytest

CHROMIUM = Path("/usr/bin/chromium")
# Nothing that talks to the outside by itself: tests assert that pages stay on their host.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENSHOTS = os.environ.pop("FEEDBACK_SCREENSHOTS", "")  # taken out: it is no setting of the app
Picture = Callable[[Any, str], None]


class OpenBrowser(Protocol):
    """Opens a fresh browser context (own cookies) and gives its page."""

    def __call__(
        self, *, width: int = 1280, height: int = 900, dark: bool = False
    ) -> AbstractContextManager[Any]:  # pragma: no cover
        """A context manager giving a Playwright page; closed with its context at the end."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser process for a test file; skips where Chromium or Playwright is absent.

    Not for the whole session: while it lives, Playwright's event loop counts as running, and `asyncio.run` of other
    tests would fail.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (dev extra)")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there; install Debian's chromium for the browser tests")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_browser(chromium: Any) -> OpenBrowser:
    """`with open_browser(width=390, dark=True) as page:` several times a test for several people."""

    @contextmanager
    def open_page(*, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        context.set_default_timeout(60_000)  # costs only what fails; a busy machine is slow
        try:
            yield context.new_page()
        finally:
            context.close()

    return open_page


@pytest.fixture
def picture() -> Picture:
    """Save a picture of the page under a name, when FEEDBACK_SCREENSHOTS names a folder."""

    def save(page: Any, name: str) -> None:
        if not SCREENSHOTS:
            return
        from PIL import Image

        folder = Path(SCREENSHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(400)  # transitions end
        image = Image.open(BytesIO(page.screenshot())).convert("RGB")
        image.quantize(128).save(folder / f"{name}.png", optimize=True)

    return save
