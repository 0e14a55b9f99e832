"""The journeys' own settings."""

from __future__ import annotations

import os

import pytest

from feedback_app.settings import PREFIX
from tests.browser import Picture, chromium, open_browser, picture

__all__ = ["Picture", "chromium", "open_browser", "picture"]


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app starts with its defaults."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
