"""The page with two to four versions side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from feedback_app.pages.curves import Line, curves
from storage import accounts, projects, registry, runs
from storage.enums import Role, Split
from storage.models import Evaluation, Prompt, Run
from storage.snapshots import build_snapshot
from tests import factories
from tests.storage.test_snapshot_diff import SMALL
from tests.web.conftest import House
from tests.web.test_questions import Told, told

__all__ = ["told"]

SignIn = Callable[[str], TestClient]


@pytest.fixture
def rivals(house: House, told: Told) -> str:
    """A project with a base model, a champion and a candidate that was evaluated and has curves; gives its name."""
    with house.sessions.begin() as session:
        project, user = projects.get_project(session, told.project), accounts.get_user(session, told.name)
        factories.make_items(session, project, 2, split=Split.TRAIN)
        for _ in range(2):
            factories.make_annotation(session, project, user)
        snapshot = build_snapshot(session, project, SMALL, house.settings.home)
        champion = registry.get_version(session, project, told.version)
        candidate = factories.make_version(session, project, snapshot=snapshot)
        for version, lift in ((champion, 0.0), (candidate, 0.1)):
            points = [
                runs.MetricPoint(step, name, start + slope * step + lift / 2)
                for step in range(0, 61, 10)
                for name, start, slope in (
                    ("loss", 0.7, -0.004), ("eval_loss", 0.69, -0.002),
                    ("accuracy", 0.5, 0.004), ("eval_accuracy", 0.5, 0.003),
                )
            ]  # fmt: skip
            runs.add_metrics(session, version.run_id or 0, points)
        run = session.get_one(Run, candidate.run_id)
        run.config = {**run.config, "beta": 0.4}
        figure = {"value": 0.62, "low": 0.55, "high": 0.69, "n": 90, "champion": 0.5,
                  "difference": {"value": 0.12, "low": 0.05, "high": 0.19}}  # fmt: skip
        session.add(
            Evaluation(
                version_id=candidate.id, champion_id=champion.id, split=Split.TEST,
                metrics={"kind": "policy", "figures": {"win_rate": figure, "kl": {"value": None}}},
            )
        )  # fmt: skip
        prompt = session.scalars(select(Prompt).where(Prompt.project_id == project.id).order_by(Prompt.id)).first()
        factories.make_completion(session, prompt, "It <b>comes</b> on Friday.", model_version_id=candidate.id)
    return told.project


def test_an_operator_reads_versions_side_by_side(
    house: House, rivals: str, as_user: SignIn, client: TestClient
) -> None:
    operator, path = as_user(house.person(Role.OPERATOR)), f"/compare/{rivals.replace(' ', '%20')}"
    shown = operator.get(path).text  # by itself: the champion and the newest candidate
    for text in ("policy-v2", "0.62", "0.55 to 0.69", "+0.12 against policy-v1", ">KL<", "policy-v1 was not evaluated",
                 "It &lt;b&gt;comes&lt;/b&gt; on Friday.", "It comes on Tuesday.", "2 rows added", "0.4"):  # fmt: skip
        assert text in shown, text
    assert shown.count("<svg") == 2
    assert shown.count("<polyline") == 8
    three = operator.get(f"{path}?v=policy-v0&v=policy-v1&v=policy-v2")
    assert (three.status_code, three.text.count('<th scope="col">')) == (200, 9)
    assert "not trained on a snapshot" in three.text
    one = operator.get(f"{path}?v=policy-v1")
    assert (one.status_code, "Choose 2 to 4 versions" in one.text) == (422, True)
    assert operator.get(f"{path}?v=policy-v1&v=policy-v9").status_code == 404
    assert as_user(house.person()).get(path).status_code == 403
    assert client.get(path).headers["location"].startswith("/login?next=%2Fcompare%2F")


def test_a_curve_leaves_out_what_is_not_finite_and_names_its_line() -> None:
    drawn = curves([Line(0, "a <b>", [(0, 0.5), (1, None), (2, 0.25)], True)], "Loss")
    assert 'points="52.0,' in drawn
    assert drawn.count(",") == 2
    assert "a &lt;b&gt;" in drawn
    assert curves([Line(0, "a", [(0, None)], True)], "Loss") == ""
    assert "<circle" in curves([Line(0, "a", [(3, 0.5)], False)], "Loss")
