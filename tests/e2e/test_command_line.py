"""The loop from the command line, in real processes; and a base model that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
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

    def __call__(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The object that the command prints; the test fails when it ends with another exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "feedback_app", *arguments, "--json"],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def shell(home: Path) -> Shell:
    """The command line on an empty data folder."""
    return Shell(home)


@pytest.mark.timeout(600)
def test_import_train_promote_export(shell: Shell, tmp_path: Path) -> None:
    from datasets import load_dataset

    pairs = write_pairs(tmp_path / "pairs.jsonl", 60)
    assert shell("import", str(pairs), "--project", "care")["pairs"] == 60

    reward = shell("train", "reward", "--project", "care", *FEW_STEPS, "--wait")
    assert (reward["status"], reward["model_version"]) == ("succeeded", "reward-v1")
    assert 0 <= reward["metrics"]["test_accuracy"] <= 1
    assert any("longer" in name for name in reward["metrics"]), reward["metrics"].keys()

    policy = shell("train", "dpo", "--project", "care", *FEW_STEPS, "--wait")
    assert (policy["status"], policy["model_version"], policy["step"]) == ("succeeded", "policy-v1", 2)
    assert shell("models", "promote", "policy-v1", "--reason", "two steps for a test")["previous"] == "policy-v0"
    shown = shell("models", "show", "policy-v1")
    assert len(shown["annotations"]) > 0
    assert shell("runs", "log", str(policy["run"]))["lines"]

    out = tmp_path / "data-set"
    assert (
        shell("export", "--project", "care", "--what", "preference", "--format", "hf", "--out", str(out))["rows"] == 60
    )
    rows = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert sum(split.num_rows for split in rows.values()) == 60


@pytest.mark.timeout(300)
def test_a_base_model_without_a_chat_template_fails_in_one_line(shell: Shell, tmp_path: Path) -> None:
    silent = shutil.copytree(resolve_base_model("starter"), tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    shell.environment["FEEDBACK_BASE_MODEL"] = str(silent)
    shell("import", str(write_pairs(tmp_path / "pairs.jsonl", 60)), "--project", "care")
    failed = shell("train", "dpo", "--project", "care", *FEW_STEPS, "--wait", code=1)
    assert (failed["status"], failed["model_version"]) == ("failed", None)
    assert "chat template" in failed["error"]
    assert "\n" not in failed["error"]
