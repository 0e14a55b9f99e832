"""The loop from the command line, in real processes; beside it a base model that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import write_pairs
from trainer.policy import resolve_base_model

FEW_STEPS = ("--set", "max_steps=2", "--set", "batch_size=4", "--set", "early_stopping=false")


class Shell:
    """`feedback-app …` as a process of its own, on one data folder."""

    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, "FEEDBACK_HOME": str(home)}

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """The object that the command prints; the test fails when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "feedback_app", *arguments, "--json"],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def shell(home: Path) -> Shell:
    """The command line on an empty data folder."""
    return Shell(home)


@pytest.mark.timeout(600)
def test_import_train_promote_export(shell: Shell, home: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    pairs = write_pairs(tmp_path / "pairs.jsonl", 60)
    for project in ("care", "silent"):
        assert shell("import", str(pairs), "--project", project)["pairs"] == 60
    silent = shutil.copytree(resolve_base_model("starter"), tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    with sqlite3.connect(home / "feedback.db") as store:
        store.execute("UPDATE projects SET base_model = ? WHERE name = 'silent'", [str(silent)])

    # The worker that the last of them starts does all three.
    few = (*FEW_STEPS, "--project")
    hopeless = shell("train", "dpo", *few, "silent")["run"]
    first = shell("train", "reward", *few, "care")["run"]
    policy = shell("train", "dpo", *few, "care", "--wait")
    assert (policy["status"], policy["model_version"], policy["step"]) == ("succeeded", "policy-v1", 2)

    reward = shell("runs", "show", str(first))
    assert (reward["status"], reward["model_version"]) == ("succeeded", "reward-v1")
    assert 0 <= reward["metrics"]["test_accuracy"] <= 1
    assert any("longer" in name for name in reward["metrics"]), reward["metrics"].keys()

    failed = shell("runs", "show", str(hopeless))
    assert (failed["status"], failed["model_version"]) == ("failed", None)
    assert "chat template" in failed["error"]
    assert "\n" not in failed["error"]

    promoted = shell("models", "promote", "policy-v1", "--project", "care", "--reason", "two steps for a test")
    assert promoted["previous"] == "policy-v0"
    shown = shell("models", "show", "policy-v1", "--project", "care")
    assert len(shown["annotations"]) > 0
    assert shell("runs", "log", str(policy["run"]))["lines"]

    out = tmp_path / "data-set"
    assert (
        shell("export", "--project", "care", "--what", "preference", "--format", "hf", "--out", str(out))["rows"] == 60
    )
    rows = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert sum(split.num_rows for split in rows.values()) == 60
