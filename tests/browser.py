"""A real browser for tests: Debian's Chromium through Playwright; tests that need it are skipped where it is absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

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
KEPT = "local_storage,indexeddb,cache_storage,service_workers"  # what a page may keep, as DevTools name it
Picture = Callable[[Any, str], None]


class OpenBrowser(Protocol):
    """Opens a browser context that is nobody's yet (own cookies, nothing kept) and gives its page."""

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


@pytest.fixture(scope="module")
def spare_contexts() -> list[Any]:
    """Contexts that tests of this file have left, emptied: what pages load is in their cache."""
    return []


@pytest.fixture
def open_browser(chromium: Any, spare_contexts: list[Any]) -> OpenBrowser:
    """`with open_browser(width=390, dark=True) as page:` several times a test for several people."""

    @contextmanager
    def open_page(*, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
        context = spare_contexts.pop() if spare_contexts else chromium.new_context()
        context.set_default_timeout(60_000)  # costs only what fails; a busy machine is slow
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if dark else "light")
        seen: set[str] = set()
        page.on("framenavigated", lambda frame: seen.add(frame.url))
        try:
            yield page
        except BaseException:
            context.close()
            raise
        _forget(context, seen)
        spare_contexts.append(context)

    return open_page


def _forget(context: Any, urls: set[str]) -> None:
    """Close the pages and drop all that they kept, but for what they have loaded: nobody has been here."""
    for page in context.pages:
        page.close()
    context.clear_cookies()
    page = context.new_page()
    devtools = context.new_cdp_session(page)
    for origin in {"{0.scheme}://{0.netloc}".format(urlsplit(url)) for url in urls if url.startswith("http")}:
        devtools.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": KEPT})
    page.close()


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
