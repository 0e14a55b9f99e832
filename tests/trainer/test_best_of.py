"""The best of n: who chooses, when that is refused, and that the best is what is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from storage.best_of import best_of, moved
from storage.configs import GenerateConfig, SamplingSettings
from storage.enums import ModelKind, RunKind, Split
from storage.models import Evaluation, Project
from storage.registry import promote
from tests.factories import make_version
from tests.trainer.conftest import Executor
from tests.trainer.test_scoring import ask, rewards  # noqa: F401  a fixture
from trainer.folder import Job, RunFolder
from trainer.scoring import score_completions

WANTED = SamplingSettings(best_of=16)


def _measured(session: Session, version: Any, low: float, ece: float) -> None:
    told = {"accuracy": {"value": 0.7, "low": low, "high": 0.8, "n": 90}, "ece": {"value": ece, "n": 90}}
    session.add(Evaluation(version_id=version.id, split=Split.TEST, metrics={"figures": told}))
    session.flush()


def test_a_reward_model_chooses_when_it_is_up_to_it(sessions: sessionmaker[Session], project_id: int) -> None:
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)

        def says(sampling: SamplingSettings = WANTED) -> tuple[int, str]:
            found = best_of(session, project, sampling, "starter")
            return found.n, found.why

        assert says(SamplingSettings()) == (1, "")
        assert "promote one" in says()[1]
        version = make_version(session, project, ModelKind.REWARD)
        promote(session, version, None, "the first")
        assert says() == (1, "best of n is off: reward-v1 was not evaluated: feedback-app evaluate reward-v1")
        _measured(session, version, 0.49, 0.02)
        assert "guessing" in says()[1]
        _measured(session, version, 0.6, 0.3)
        assert "calibration error" in says()[1]
        _measured(session, version, 0.6, 0.02)
        assert says()[0] == 4, "one head does not say how unsure it is"
        version.metrics = {"heads": 4}
        assert says()[0] == 16
        assert "1.84 nats" in says()[1]
        assert best_of(session, project, WANTED, "another").n == 1
    assert moved(1) == 0
    assert moved(16) == pytest.approx(math.log(16) - 15 / 16)


def test_what_is_kept_is_the_best_of_its_part(
    tmp_path: Path,
    tiny_base: Path,
    rewards: dict[str, Path],  # noqa: F811  the fixture
    run: Executor,
) -> None:
    base = {"recipe": RunKind.GENERATE, "run_id": 1, "project": "tiny", "base_model": str(tiny_base)}
    written = {}
    for n in (1, 6):
        folder = RunFolder(tmp_path / str(n))
        folder.path.mkdir()
        rows = [{"prompt_id": k, "messages": ask(f"parcel {k}"), "versions": ["policy-v0"] * 2} for k in range(4)]
        folder.requests.write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder.write_job(
            Job(
                config=GenerateConfig(device="cpu", threads=1).model_dump(),
                adapters={"policy-v0": None},
                rewards={name: str(path) for name, path in rewards.items()},
                chooser="reward-v2",
                sampling=SamplingSettings(temperature=1.0, max_new_tokens=8, best_of=n).model_dump(),
                **base,
            )
        )
        assert run(folder).result["completions"] == 8
        written[n] = [json.loads(line) for line in (folder.out / "completions.jsonl").read_text().splitlines()]
    chosen, plain = ([row["scores"]["reward-v2"] for row in written[n]] for n in (6, 1))
    assert sum(chosen) > sum(plain)
    assert all("chosen" not in row for row in written[1])
    assert written[6][0]["chosen"]["best_of"] == 6
    assert written[6][0]["chosen"]["chosen_by"] == "reward-v2"
    row = written[6][3]
    messages = ask(f"parcel {row['prompt_id']}")
    (again,) = score_completions(str(tiny_base), rewards, [(messages, row["text"])], device="cpu")["reward-v2"]
    assert again is not None
    assert again.value == pytest.approx(row["scores"]["reward-v2"], abs=1e-4), "each score is its own text's"
