"""An evaluation on the Runs tab: queued by name, shown with intervals, slices, a diagram and notes."""

from __future__ import annotations

import pytest

from feedback_app.handlers import project, runs
from feedback_app.pages import runs_tab
from storage.enums import Role, RunKind, Split
from storage.errors import NotFound
from storage.models import Evaluation, Run
from tests import factories

pytestmark = pytest.mark.usefixtures("idle_queue")


def _figure(value, n=40, **more):
    return {
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "n": n,
        "champion": None,
        "difference": None,
    } | more


def test_an_evaluation_is_started_by_name_and_shown_with_all_that_it_found(house):
    olga, name = house.person(Role.OPERATOR), house.project(items=1)
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, name)
        factories.make_prompt(session, found, split=Split.TEST)
        snapshot = factories.make_snapshot(session, found)
        other, version = (factories.make_version(session, found, snapshot=snapshot) for _ in range(2))
        session.get_one(Run, other.run_id).seed = 8
    with pytest.raises(NotFound, match="policy-v9"):
        runs.start(house.ctx, olga, name, "evaluate", {"epochs": "2"}, "version=policy-v9")
    view = runs.start(house.ctx, olga, name, "evaluate", {"epochs": "2"}, "prompts=7")
    run = view.selected.run
    assert (run.kind, run.config["prompts"], view.selected.parent) == (RunKind.EVALUATE, 7, version.name)
    assert view.selected.evaluation is None
    bins = [{"low": 0.5, "high": 0.7, "confidence": 0.6, "accuracy": 0.65, "n": 40}]
    apart = {"value": 0.05, "low": -0.02, "high": 0.12}
    metrics = {
        "kind": "policy", "temperature": 1.7, "reliability": bins, "reliability_before": bins,
        "figures": {"win_rate": _figure(0.61), "accuracy": _figure(0.7, champion=0.65, difference=apart)},
        "slices": {"tag:<i>late</i>": {"win_rate": _figure(0.4, 9)}},
        "notes": ["format check '<b>' fails in 3 of 40 completions"],
    }  # fmt: skip
    with house.sessions.begin() as session:
        session.add(Evaluation(version_id=version.id, run_id=run.id, split=Split.TEST, metrics=metrics))
        before = {"figures": {"win_rate": _figure(0.41)}}
        session.add(Evaluation(version_id=other.id, split=Split.TEST, metrics=before))
    shown = runs_tab.detail(runs.see_runs(house.ctx, olga, name, run.id).selected)
    for text in ("0.61", "0.51 to 0.71", "0.05 (-0.02 to 0.12)", "60% sure, 65% right", "temperature 1.7"):
        assert text in shown
    assert "&lt;i&gt;late" in shown
    assert "<i>late" not in shown
    assert "Format check &#x27;&lt;b&gt;&#x27; fails in 3 of 40 completions." in shown
    # The same was trained with another seed, and evaluated.
    told = f"Trained with 2 seeds, all else the same: {other.name}, {version.name}. What differs here is luck."
    for text in ("Over seeds", told, "0.51", "0.141", "0.41 to 0.61"):
        assert text in shown, text


def test_best_of_and_format_checks_are_fields_of_the_project(house):
    olga, name = house.person(Role.ADMIN), house.project(items=1)
    view = project.see_project(house.ctx, olga, name)
    given = {
        "guidelines": "", "overlap": 1, "queue_target": 0, "daily_target": 0, "temperature": 0.7, "top_p": 1,
        "max_new_tokens": 50, "best_of": 8, "caution": 0.5, "formats": "short: at_most 600\n\n", "mode": "off",
        "every_n": 100, "cron": "0 3 * * *", "kinds": ["dpo"],
    }  # fmt: skip
    criteria = [[one.name, one.description, one.low, one.high] for one in view.criteria]
    project.save(house.ctx, olga, name, given, criteria)
    view = project.see_project(house.ctx, olga, name)
    assert (view.sampling.best_of, view.sampling.caution, view.sampling.temperature) == (8, 0.5, 0.7)
    assert view.annotating.formats == ("short: at_most 600",)
