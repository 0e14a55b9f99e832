"""A real `feedback-app up` process for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PATIENCE = 120.0  # seconds; a busy machine loads the web framework slowly


class App(NamedTuple):
    """The running app: its process, its data folder, its address and the one-time links it printed."""

    process: subprocess.Popen[str]
    home: Path
    url: str
    links: dict[str, str]


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait for something true and give it back; the test fails when it does not come."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.05)
    pytest.fail(f"waited {patience:.0f} s in vain for {what}")


@contextmanager
def running_app(home: Path) -> Iterator[App]:
    """`feedback-app up --demo` on a free port, from its first answer on; ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "feedback_app", "up", "--demo", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FEEDBACK_HOME": str(home)},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (home / "logs" / "web.log").read_text()
        said = json.loads(line)
        yield App(process, home, said["url"], said["links"])
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
