"""Versions side by side: figures, settings, training data and completions."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from storage import annotations, registry, runs
from storage.comparing import compare, pick_versions, written
from storage.enums import ModelKind, RunKind, Split
from storage.errors import Invalid, NotFound
from storage.evaluations import Figure
from storage.lineage import annotation_ids
from storage.models import Annotation, Evaluation, Project
from storage.seeds import over_seeds
from storage.training import queue_training
from tests import factories
from tests.storage.test_lineage import registered
from tests.storage.test_training import judge


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


def test_versions_are_compared_in_figures_settings_and_training_data(
    session: Session, project: Project, home: Path
) -> None:
    judge(session, project)
    here = {"home": home, "default_base_model": "starter"}
    small = {"max_steps": 3, "seed": 1}
    first = registered(session, queue_training(session, project, RunKind.DPO, small, **here))
    gone = annotation_ids(session, first)[0]
    annotations.withdraw(session, gone, session.get_one(Annotation, gone).user)
    second = registered(session, queue_training(session, project, RunKind.DPO, small | {"beta": 0.5}, **here))
    runs.add_metrics(session, second.run_id or 0, [runs.MetricPoint(1, "loss", 0.7), runs.MetricPoint(2, "loss", 0.5)])
    second.metrics = {"accuracy": 0.6, "test": {"accuracy": 0.8}, "ok": True, "note": "-"}
    stored = {"value": 0.6, "low": 0.5, "high": 0.7, "n": 20, "champion": 0.5,
              "difference": {"value": 0.1, "low": 0.0, "high": 0.2}}  # fmt: skip
    session.add(
        Evaluation(
            version_id=second.id, champion_id=first.id, split=Split.TEST,
            metrics={"kind": "policy", "figures": {"win_rate": stored}},
        )
    )  # fmt: skip
    session.flush()

    found = compare(session, pick_versions(session, project, ["policy-v1", "policy-v2"]))
    assert [(one.name, one.values) for one in found.evaluated] == [
        ("win_rate", [None, Figure(0.6, 0.5, 0.7, 20, 0.5, (0.1, 0.0, 0.2))])
    ]
    measured = {one.name: [value and value.value for value in one.values] for one in found.trained}
    assert measured == {"accuracy": [None, 0.6], "test.accuracy": [None, 0.8]}
    assert [(one.name, one.values) for one in found.settings] == [("beta", [0.3, 0.5])]
    assert found.alike > 10
    (data,) = found.data
    assert data.difference is not None
    assert data.difference.total == (0, 1, 0)
    assert [cause.happened for cause in data.difference.removed[0].causes] == ["withdrawn"]
    assert [side.curves for side in found.sides] == [{}, {"loss": [(1, 0.7), (2, 0.5)]}]

    base = compare(session, pick_versions(session, project, ["policy-v0", "policy-v2"]))
    assert "not trained on a snapshot" in base.data[0].why
    factories.make_version(session, project, ModelKind.REWARD)
    for names, problem in (
        (["policy-v1", "policy-v1"], "1 given"),
        (["policy-v1", "reward-v1"], "one kind"),
    ):
        with pytest.raises(Invalid, match=problem):
            pick_versions(session, project, names)
    with pytest.raises(NotFound):
        pick_versions(session, project, ["policy-v1", "policy-v9"])


def test_what_only_the_seed_changed_is_told_over_the_seeds(session: Session, project: Project, home: Path) -> None:
    judge(session, project)
    here = {"home": home, "default_base_model": "starter"}
    made = [
        registered(session, queue_training(session, project, RunKind.DPO, {"max_steps": 3} | values, **here))
        for values in ({"seed": 1}, {"seed": 2}, {"seed": 2}, {"seed": 3}, {"seed": 4, "beta": 0.5}, {"seed": 5})
    ]
    base = registry.champion(session, project)
    assert base is not None
    for version, win_rate in zip(made, (0.5, 0.9, 0.6, 0.7, 0.1, None), strict=True):
        figure = {"value": win_rate, "low": None, "high": None, "n": 20, "champion": None, "difference": None}
        metrics = {"kind": "policy", "figures": {"win_rate": figure}}
        session.add(Evaluation(version_id=version.id, champion_id=base.id, split=Split.TEST, metrics=metrics))
    session.flush()
    first, again, second, third, other, unmeasured = made
    found = over_seeds(session, first)
    assert found is not None
    assert found.versions == [one.name for one in (first, second, third)], "of each seed the newest that has figures"
    assert found.seeds == [1, 2, 3]
    assert unmeasured.name not in found.versions
    mean, deviation, low, high, n = found.figures["win_rate"]
    assert (mean, deviation) == (pytest.approx(0.6), pytest.approx(0.1))
    assert (low, high, n) == (0.5, 0.7, 3)
    own = over_seeds(session, again)
    assert own is not None
    assert again.name in own.versions
    assert over_seeds(session, other) is None, "another setting is another recipe"
    assert over_seeds(session, base) is None
    compared = compare(session, [first, second, other])
    assert [one.versions for one in compared.seeds] == [found.versions], "said once"


def test_completions_for_the_same_prompts_come_a_page_at_a_time(session: Session, project: Project) -> None:
    versions = [registry.base_version(session, project, "starter")]
    versions += [factories.make_version(session, project) for _ in range(2)]
    prompts = [factories.make_prompt(session, project) for _ in range(4)]
    for version, where in zip(versions, (prompts, prompts[1:], prompts[3:]), strict=True):
        for prompt in where:
            for take in ("first", "second"):
                factories.make_completion(session, prompt, f"{take} {version.name}", model_version_id=version.id)
    page = written(session, versions, limit=2)
    assert [(row.prompt_id, row.texts) for row in page.rows] == [
        (prompts[3].id, ["first policy-v0", "first policy-v1", "first policy-v2"]),
        (prompts[2].id, ["first policy-v0", "first policy-v1", None]),
    ]
    rest = written(session, versions, limit=2, before=page.before)
    assert [row.prompt_id for row in rest.rows] == [prompts[1].id]
    assert rest.before is None
