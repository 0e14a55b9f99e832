"""`cli("db", "check")` runs a command in this process, on a data folder of the test's own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from feedback_app.cli import main
from feedback_app.settings import PREFIX
from storage.engine import make_engine, make_sessions


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The object that stands last on stdout."""
        return json.loads(self.out.strip().splitlines()[-1])

    @property
    def error(self) -> str:
        """The one line on stderr that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("error: ")


Cli = Callable[..., Ended]


@pytest.fixture(autouse=True)
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No setting of the machine reaches a test; the data folder is the test's own."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FEEDBACK_HOME", str(home))
    return home


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run one command: its exit code and what it printed."""

    def run(*arguments: str | Path | int) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ended(code, out, err)

    return run


@pytest.fixture
def store(home: Path, sqlite_template: Path) -> Iterator[sessionmaker[Session]]:
    """The store that the commands use."""
    shutil.copy(sqlite_template, home / "feedback.db")
    engine = make_engine(f"sqlite:///{home / 'feedback.db'}")
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture
def pairs(tmp_path: Path, store: sessionmaker[Session]) -> Path:
    """A file with 60 preference pairs in TRL's columns, and a store to take them."""
    return write_pairs(tmp_path / "pairs.jsonl", 60)


def write_pairs(path: Path, count: int) -> Path:
    """A file of `count` preference pairs, each with a prompt of its own."""
    rows = (
        {
            "prompt": f"Where is my parcel number {number}?",
            "chosen": f"Dear customer, parcel {number} arrives on Monday.",
            "rejected": f"No idea where {number} is.",
        }
        for number in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
