"""What the Runs tab does: start, follow, cancel, let go on; and what it refuses in one line."""

from __future__ import annotations

from datetime import timedelta

import pytest

from feedback_app import plots
from feedback_app.handlers import project, runs
from feedback_app.pages import cycle_fields, runs_tab
from storage import cycle, playground
from storage.enums import RunKind, RunStatus, Split
from storage.errors import Conflict, Invalid, NotAllowed, NotEnoughData, NotFound
from storage.run_events import MetricPoint, add_log, add_metrics
from storage.runs import claim_run, finish_run, heartbeat
from tests import factories

pytestmark = pytest.mark.usefixtures("idle_queue")


def _trainable(house, pairs=20):
    """A project with enough judged pairs to train on."""
    name, user = house.project(), house.person()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, name)
        annotator = factories.accounts.get_user(session, user)
        for split in [Split.TRAIN] * pairs + [Split.TEST, Split.VALIDATION]:
            prompt = factories.make_prompt(session, found, split=split)
            factories.make_item(session, found, prompt=prompt)
        for _ in range(pairs + 2):
            factories.make_annotation(session, found, annotator)
    return name


def test_training_is_refused_with_the_missing_number(house, olga):
    name = house.project(items=1)
    with pytest.raises(NotEnoughData, match="16"):
        runs.start(house.ctx, olga, name, "dpo", {}, "")
    assert "16 more pairs" in runs_tab.preview(runs.what_training_uses(house.ctx, olga, name))


def test_a_run_is_queued_with_what_was_asked(house, olga):
    name = _trainable(house)
    asked = {"epochs": "2", "learning_rate": None, "beta": ""}
    view = runs.start(house.ctx, olga, name, "dpo", asked, "max_steps=7\n\nearly_stopping = false\n")
    run = view.selected.run
    assert (run.kind, run.status, view.live) == (RunKind.DPO, RunStatus.QUEUED, True)
    assert run.asked == {"epochs": 2.0, "max_steps": 7, "early_stopping": False}
    assert view.selected.asked_by == olga
    # Beta is a field of the form that a reward model does not have.
    reward = runs.start(house.ctx, olga, name, "reward", {"beta": "0.1"}, "").selected.run
    assert "beta" not in reward.asked


@pytest.mark.parametrize(
    ("kind", "asked", "more"),
    [
        ("nonsense", {}, ""),
        ("dpo", {"epochs": "many"}, ""),
        ("dpo", {}, "no equals sign"),
        ("dpo", {}, "unknown_key=1"),
        ("dpo", {}, "max_steps=-1"),
        ("dpo", {}, "max_steps=1\nmax_steps=2"),
        ("dpo", {}, "max_steps="),
        ("dpo", {}, ["max_steps=1"]),
        (None, {}, ""),
    ],
)
def test_bad_settings_queue_nothing(house, olga, kind, asked, more):
    name = house.project(items=1)
    with pytest.raises(Invalid) as caught:
        runs.start(house.ctx, olga, name, kind, asked, more)
    assert "\n" not in str(caught.value)
    assert runs.see_runs(house.ctx, olga, name, None).runs == []


def test_the_selected_run_survives_and_others_projects_are_not_shown(house, olga):
    with house.sessions.begin() as session:
        mine, theirs = factories.make_project(session), factories.make_project(session)
        ids = [factories.make_run(session, mine).id for _ in range(3)]
        foreign = factories.make_run(session, theirs).id
        name = mine.name

    def selected(run):
        return runs.see_runs(house.ctx, olga, name, run).selected.run.id

    assert selected(str(ids[0])) == ids[0]
    assert selected(None) == selected("x") == selected(foreign) == selected(10**12) == ids[2]
    with pytest.raises(NotFound):
        runs.cancel(house.ctx, olga, name, foreign)


def test_cancel_ends_a_queued_run_once(house, olga):
    with house.sessions.begin() as session:
        found = factories.make_project(session)
        run, name = factories.make_run(session, found).id, found.name
    ended = runs.cancel(house.ctx, olga, name, run)
    assert ended.selected.run.status is RunStatus.CANCELLED
    with pytest.raises(Conflict):
        runs.cancel(house.ctx, olga, name, run)
    # It can go on: once.
    assert _buttons(ended) == (False, True)
    again = runs.resume(house.ctx, olga, name, run)
    assert (again.selected.run.status, again.live, _buttons(again)) == (RunStatus.QUEUED, True, (True, False))
    with pytest.raises(Conflict, match=f"run {run} is queued; only one that failed or was cancelled can go on"):
        runs.resume(house.ctx, olga, name, run)
    with pytest.raises(NotFound):
        runs.resume(house.ctx, olga, house.project(), run)
    with pytest.raises(NotAllowed):
        runs.resume(house.ctx, house.person(), name, run)


def _buttons(view):
    """Whether "Cancel run" and "Go on" are there."""
    shown = runs_tab.values(view)
    assert len(shown) == runs_tab.OUTPUTS
    return tuple(one.visible for one in shown[5:7])


def test_a_cycle_shows_its_steps_and_the_project_says_when_the_next_is_due(house, olga):
    name = _trainable(house)
    values = {
        "mode": "every_n", "every_n": 50, "cron": "0 3 * * *", "kinds": ["cycle"], "overlap": 1, "queue_target": 0,
        "temperature": 1, "top_p": 1, "max_new_tokens": 20, "daily_target": 0, "steps": ["reward", "gate"],
        "recipe": "kto", "resolution_below": 0.4, "resolution_least": 5,
    }  # fmt: skip
    criteria = [["quality", "", 1, 5]]
    project.save(house.ctx, olga, name, values, criteria)
    saved = project.see_project(house.ctx, olga, name)
    assert cycle_fields.values(saved) == [0.4, 5, ["reward", "gate"], "kto"]
    with pytest.raises(Invalid, match="alone"):
        project.save(house.ctx, olga, name, values | {"kinds": ["cycle", "dpo"]}, criteria)
    view = runs.start(house.ctx, olga, name, "cycle", {"epochs": "2"}, "")
    parent = view.selected.run
    assert (parent.kind, parent.config["training"]) == (RunKind.CYCLE, {"epochs": 2.0})
    with house.sessions.begin() as session:
        cycle.advance(session, parent.id, cycle.Installation(house.settings.home, "starter"))
    view = runs.see_runs(house.ctx, olga, name, parent.id)
    shown = runs_tab.header(view.selected, view)
    assert _plots(view) == (True, True), "those of the step that trains"
    child = view.selected.children[0]
    assert f'data-run="{child.id}"' in shown
    assert [shown.index(f'<td data-label="step">{step}</td>') for step in ("reward", "gate", "promote")]
    listed = runs_tab.run_list(view)
    assert listed.index(f'data-run="{parent.id}"') < listed.index(f'data-run="{child.id}"'), "the steps stand below"
    assert f"By itself: Run {parent.id} (cycle) is running." in listed
    assert runs.cancel(house.ctx, olga, name, parent.id).live
    with house.sessions.begin() as session:
        cycle.advance(session, parent.id, cycle.Installation(house.settings.home, "starter"))
    view = runs.see_runs(house.ctx, olga, name, parent.id)
    assert (view.selected.run.status, view.selected.children[0].status) == (RunStatus.CANCELLED, RunStatus.CANCELLED)
    assert "50 more annotations are needed" in runs_tab.run_list(view)


def test_a_live_run_shows_progress_time_left_and_figures(house, olga):
    with house.sessions.begin() as session:
        found = factories.make_project(session)
        run = factories.make_run(session, found, worker="w1")
        heartbeat(session, run.id, "w1", 25, 100)
        add_metrics(session, run.id, [MetricPoint(step, "loss", 1 / step) for step in range(1, 2001)])
        add_metrics(session, run.id, [MetricPoint(5, "eval_accuracy", 0.75), MetricPoint(6, "accuracy", None)])
        add_log(session, run.id, ["<script>alert(1)</script>"])
        name = found.name
    view = runs.see_runs(house.ctx, olga, name, None)
    loss, accuracy = (plots.frame(plot, view.selected.series) for plot in (plots.LOSS, plots.ACCURACY))
    assert len(loss) <= plots.MAX_POINTS
    assert loss["step"].max() == 2000
    assert accuracy.dropna()[["step", "value", "series"]].values.tolist() == [[5, 0.75, "validation"]]
    assert set(accuracy["series"]) == {"training", "validation"}  # a line that begins later has its colour already
    run = view.selected.run
    assert runs.time_left(run, run.started_at + timedelta(seconds=50)) == 150
    shown = runs_tab.header(view.selected, view) + runs_tab.detail(view.selected)
    assert "step 25 of 100" in shown
    assert view.selected.seconds_left is not None
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def _plots(view):
    """Whether the plots of loss and accuracy are there."""
    return tuple(bool(one.visible) for one in runs_tab.values(view)[3:5])


@pytest.mark.parametrize(
    ("kind", "awaited"),
    [
        (RunKind.GENERATE, (False, False)),
        (RunKind.DPO, (True, True)),
        (RunKind.KTO, (True, True)),
        (RunKind.SFT, (True, False)),
    ],
)
def test_plots_are_there_for_what_a_run_gives(house, olga, kind, awaited):
    with house.sessions.begin() as session:
        found = factories.make_project(session)
        run = factories.make_run(session, found, kind, worker="w1").id
        name = found.name
    assert _plots(runs.see_runs(house.ctx, olga, name, run)) == awaited
    with house.sessions.begin() as session:
        finish_run(session, run, "w1", RunStatus.FAILED, error="out of memory")
    assert _plots(runs.see_runs(house.ctx, olga, name, run)) == (False, False), "it gave no point"
    with house.sessions.begin() as session:
        add_metrics(session, run, [MetricPoint(1, "loss", 0.5)])
    assert _plots(runs.see_runs(house.ctx, olga, name, run)) == (True, False)
    assert _plots(runs.see_runs(house.ctx, olga, house.project(), None)) == (False, False)


def test_a_playground_says_nothing_of_an_end(house, olga):
    with house.sessions.begin() as session:
        found = factories.make_project(session)
        playground.wake(session, found)
        run = claim_run(session, "w1", [RunKind.PLAYGROUND]).id
        heartbeat(session, run, "w1", 1, 1)
        name = found.name
    view = runs.see_runs(house.ctx, olga, name, run)
    assert view.selected.seconds_left is None
    assert "left" not in runs_tab.header(view.selected, view)


def test_a_failed_run_says_why(house, olga):
    with house.sessions.begin() as session:
        found = factories.make_project(session)
        run = factories.make_run(session, found, worker="w1")
        finish_run(session, run.id, "w1", RunStatus.FAILED, error="the loss is not finite; lower the <rate>")
        name = found.name
    view = runs.see_runs(house.ctx, olga, name, None)
    assert not view.live
    assert "lower the &lt;rate&gt;" in runs_tab.header(view.selected, view)
