"""The journey's own settings, and pictures of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from feedback_app.settings import PREFIX
from tests.browser import chromium, open_browser

__all__ = ["chromium", "open_browser"]

SCREENSHOTS = os.environ.pop("FEEDBACK_SCREENSHOTS", "")  # taken out: it is no setting of the app
Picture = Callable[[Any, str], None]


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app starts with its defaults."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


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
