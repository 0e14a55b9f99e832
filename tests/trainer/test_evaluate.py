"""Evaluations: what is read and counted, and a run through store and worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage.engine import read_only
from storage.enums import RunKind, RunStatus, Split
from storage.errors import Invalid, NotEnoughData
from storage.evaluation_configs import EvaluateConfig
from storage.evaluations import (
    as_shown,
    figures,
    human_agreement,
    latest_evaluation,
    queue_evaluation,
    queue_evaluation_of,
)
from storage.models import Project, Prompt
from storage.projects import update_project
from storage.registry import base_version, get_version
from storage.runs import get_run
from tests.factories import make_annotation, make_item, make_prompt, make_user
from tests.trainer.conftest import rows_of
from tests.trainer.working import judge, queue, run_of, work
from trainer import evaluate_policy, evaluate_reward
from trainer.bridge import lay_out
from trainer.calibration import fit_temperature
from trainer.evaluate_policy import Completed, Sides
from trainer.evaluating import Judge, Margins, Task
from trainer.figures import About, Report, distinct_2, language_of, mean, objects, slices_of
from trainer.folder import Job, RunFolder
from trainer.measuring import passages_of, read
from trainer.place import Place
from trainer.policy import load_policies
from trainer.run import OK, execute
from trainer.worker import Worker, kinds_of


def test_what_is_read_is_what_the_model_says(tiny_base: Path) -> None:
    policies = load_policies(str(tiny_base), {"policy-v0": None}, device="cpu")
    rows = [*rows_of(3, 1), *rows_of(2, 2, words=12)]
    passages = [one["chosen"] for one in passages_of(policies, "policy-v0", rows)]
    together = read(policies, "policy-v0", passages, batch_size=5, with_kl=True)
    for passage, found in zip(passages, together, strict=True):
        ids = torch.tensor([[*passage.prompt, *passage.completion]])
        with torch.inference_mode():
            logprobs = policies.model(input_ids=ids).logits.log_softmax(-1)[0]
        places = range(len(passage.prompt) - 1, ids.shape[1] - 1)
        alone = sum(float(logprobs[n, ids[0, n + 1]]) for n in places)
        assert found.logprob == pytest.approx(alone, abs=1e-3), "company and padding change nothing"
        assert (found.tokens, found.kl) == (len(passage.completion), 0.0)
    too_long = {**rows[0], "chosen": [{"role": "assistant", "content": "late " * 900}]}
    assert passages_of(policies, None, [too_long, rows[0]])[0] == {}


def test_figures_by_slice_and_what_is_missing() -> None:
    about = {n: About("shop" if n < 12 else "web", ("late",) if n % 2 else (), "x" * (n + 1)) for n in range(24)}
    slices = slices_of(about)
    assert slices[0] == ["length:short", "language:latin", "source:shop"]
    scripts = [language_of(text) for text in ("Where?", "包裹在哪里", "Где?", "42")]
    assert scripts == ["latin", "cjk", "cyrillic", "none"]
    report = Report(slices, "policy")
    ours = [float(n < 12) for n in range(24)]
    report.add("win_rate", mean, range(24), ours, [0.0] * 24, sliced=True)
    figure = report.figures["win_rate"]
    assert (figure["value"], figure["n"], figure["champion"]) == (0.5, 24, 0.0)
    assert figure["difference"]["value"] == 0.5
    assert 0.25 < figure["low"] < 0.5 < figure["high"] < 0.75
    assert report.parts["source:shop"]["win_rate"]["value"] == 1.0
    assert report.parts["tag:late"]["win_rate"]["n"] == 12
    report.figures = dict.fromkeys(("diversity", "kl", "win_rate"), figure)
    assert list(report.stored()["figures"]) == ["win_rate", "kl", "diversity"]  # what gates ask for, then the rest
    assert "language:latin" not in report.parts, "all of them are no slice"
    report.missing("kl", "why not")
    assert report.stored()["notes"] == ["why not"]
    assert distinct_2(objects([[("a", "b"), ("b", "c")], [("a", "b"), ("c", "d")]])) == 0.75
    json.dumps(report.stored(), allow_nan=False)


def test_the_human_ceiling_is_one_against_the_others(sessions: sessionmaker[Session], project_id: int) -> None:
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        project.overlap = 3
        prompt = make_prompt(session, project, split=Split.TEST)
        make_item(session, project, prompt=prompt)
        for _ in range(3):
            make_annotation(session, project, make_user(session))
        assert human_agreement(session, project, Split.TEST) == [(prompt.id, 1.0)] * 3
        assert human_agreement(session, project, Split.TRAIN) == []


@pytest.mark.timeout(280)
@pytest.mark.usefixtures("warm")
def test_a_policy_and_a_reward_model_are_measured_against_what_is_in_service(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id, held_out=14)
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        update_project(session, project, annotation_settings={"formats": "short: at_most 10000\nkind: contains zebra"})
        base = base_version(session, project, "starter")
        with pytest.raises(Invalid, match="nothing to compare"):
            queue_evaluation(session, project, base, default_base_model="starter")
        with pytest.raises(NotEnoughData, match="no candidate"):
            queue_evaluation_of(session, project, {}, default_base_model="starter")
    worker = make_worker(kinds_of(["train"]))
    for kind in (RunKind.REWARD, RunKind.DPO):
        trained = queue(sessions, project_id, home, kind, max_steps=8, learning_rate=0.05)
        work(worker, partial(_has_ended, sessions, trained))
    ids = {}
    for name in ("policy-v1", "reward-v1"):
        with sessions.begin() as session:
            project = session.get_one(Project, project_id)
            asked = {"version": name, "threads": 1, "samples": 2}
            ids[name] = queue_evaluation_of(session, project, asked, default_base_model="starter").id
            with pytest.raises(Invalid, match="pears"):
                queue_evaluation_of(session, project, {"version": name, "pears": 1}, default_base_model="starter")
        work(worker, partial(_has_ended, sessions, ids[name]))
        run = run_of(sessions, ids[name])
        assert run.status is RunStatus.SUCCEEDED, run.error
    with read_only(sessions) as session:
        project = session.get_one(Project, project_id)
        policy, reward = (get_version(session, project, name) for name in ids)
        found = latest_evaluation(session, policy)
        assert found is not None
        assert (found.champion_id, found.reward_id, found.run_id) == (
            get_version(session, project, "policy-v0").id, reward.id, ids["policy-v1"],
        )  # fmt: skip
        assert latest_evaluation(session, policy, reward) is None
        told = figures(found)
        assert {"win_rate", "implicit_accuracy", "chosen_logprob", "perplexity", "kl", "length_ratio"} <= told.keys()
        missing = [name for name, one in told.items() if one.value is None]
        assert missing == []
        win, kl, shape = told["win_rate"], told["kl"], told["format_ok"]
        assert told["judge_accuracy"].value == 1.0, "that a yes is better than a no is learned in eight steps"
        assert 0 < (win.low or 0) <= (win.value or 0) <= (win.high or 0) < 1
        prompts = session.scalars(select(Prompt.id).where(Prompt.split == Split.TEST)).all()
        assert win.n == 2 * len(prompts)
        assert (kl.value or 0) > 0 == kl.champion
        assert (shape.value, shape.champion) == (0.0, 0.0)
        assert told["implicit_accuracy"].champion is None, "the base model prefers nothing"
        assert told["chosen_logprob"].difference is not None
        assert any("zebra" in note or "kind" in note for note in found.metrics["notes"])
        assert found.metrics["temperature"] > 0
        shown = as_shown(session, policy)
        assert shown is not None
        assert (shown["against"], shown["judged_by"]) == ("policy-v0", "reward-v1")
        of_reward = latest_evaluation(session, reward)
        assert of_reward is not None
        assert of_reward.champion_id is None
        told = figures(of_reward)
        assert {"accuracy", "ece", "ece_before", "brier", "nll", "longer_wins", "bias", "variance"} <= told.keys()
        assert told["human_ceiling"].value is None
        assert told["bias"].value is not None
        assert told["variance"].value is not None
        assert sum(one["n"] for one in of_reward.metrics["reliability"]) == told["accuracy"].n == 14
    _goes_on(sessions, ids["policy-v1"], home)


def _has_ended(sessions: sessionmaker[Session], run_id: int) -> bool:
    return run_of(sessions, run_id).status.ended


def test_bias_and_variance_make_up_the_brier_score_of_a_single_head() -> None:
    """(1 - p)^2, averaged over heads, is that of their mean and their variance: exactly, and at any temperature."""
    heads = np.random.default_rng(3).normal(0.4, 1.5, (40, 4))
    margins = Margins(heads, [{"prompt_id": number // 2} for number in range(40)])
    report = Report({}, "reward")
    evaluate_reward._heads(report, Judge({Split.TEST: margins}, 1.7, "", []))
    single = ((1 - 1 / (1 + np.exp(-heads / 1.7))) ** 2).mean()
    assert report.figures["bias"]["value"] + report.figures["variance"]["value"] == pytest.approx(single)


@pytest.mark.parametrize("right", [True, False])
def test_a_judge_that_is_wrong_makes_no_winner_of_what_it_holds_for_the_worse(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, right: bool
) -> None:
    """Its word turned round would be a win rate of which the whole interval lies above one half: a pass."""
    chance = np.random.default_rng(5)
    rows = [{"prompt_id": number} for number in range(40)]
    held = Margins(chance.normal(1.0 if right else -1.0, 0.5, (40, 1)), rows)
    ours, theirs = chance.normal(-0.5, 0.2, (40, 1)), np.zeros((40, 1))
    more = [one for pair in zip(ours, theirs, strict=True) for one in pair]
    told = Judge(
        {Split.VALIDATION: held, Split.TEST: Margins(np.zeros((0, 1)), [])}, fit_temperature(held.mean), "", more
    )
    monkeypatch.setattr(evaluate_policy, "ask_rewards", lambda task, texts: {"reward-v1": told})
    job = Job(
        recipe=RunKind.EVALUATE, run_id=1, project="p", config={}, base_model="b", rewards={"reward-v1": "folder"}
    )
    asked = {"write": [{"prompt_id": number, "messages": []} for number in range(40)]}
    slices = {number: ["source:shop" if number < 20 else "source:web"] for number in range(40)}
    task = Task(RunFolder(tmp_path), job, EvaluateConfig(), asked, {}, slices)
    written = {name: [Completed(number, name, 1) for number in range(40)] for name in ("policy-v1", "policy-v0")}
    report = Report(task.slices, "policy")
    evaluate_policy._win_rate(task, report, Sides("policy-v1", "policy-v0", "policy-v0"), written)
    figure = report.figures["win_rate"]
    if right:
        assert figure["low"] < figure["value"] < figure["high"] < 0.5
        assert set(report.parts) == {"source:shop", "source:web"}
        return
    assert (figure["value"], figure["low"], figure["high"]) == (pytest.approx(0.5, abs=0.01), None, None)
    assert report.parts == {}, "nor of a slice"
    assert any("wrong on validation pairs" in note for note in report.notes)


def _goes_on(sessions: sessionmaker[Session], run_id: int, home: Path) -> None:
    """An attempt that was killed while it wrote comes to the same figures, with what it had."""
    with sessions.begin() as session:
        folder = lay_out(session, get_run(session, run_id), Place(home, "starter", "cpu"))
    before = (folder.out / "evaluation.json").read_text()
    lines = [line for line in (folder.path / "written.jsonl").read_text().splitlines() if line]
    marked = json.loads(lines[0])
    (folder.path / "written.jsonl").write_text(json.dumps(marked) + '\n{"version": "pol')
    assert execute(folder) == OK
    assert json.loads((folder.out / "evaluation.json").read_text()) == json.loads(before)
    folder.cancel_file.touch()
    assert execute(folder) != OK, "and it can be cancelled"
