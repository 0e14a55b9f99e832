"""Lineage pages: what trained a version, what learned from an annotation, and training a tainted version again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from io import BytesIO
from urllib.parse import quote
from zipfile import ZipFile

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from feedback_app.handlers import models
from feedback_app.pages import models_tab
from storage import accounts, annotations, projects, registry
from storage.artifacts import folder_sha256
from storage.enums import Role, Split
from storage.models import Annotation, Critique, Project, Run
from storage.snapshots import build_snapshot
from tests import factories
from tests.storage.test_snapshot_diff import SMALL
from tests.web.conftest import House
from tests.web.test_questions import Told, told

__all__ = ["told"]

SignIn = Callable[[str], TestClient]


@pytest.fixture
def traced(house: House, told: Told) -> Told:
    """As `told`, on a second annotation too, so that something is left when the first is taken back."""
    with house.sessions.begin() as session:
        project, user = projects.get_project(session, told.project), accounts.get_user(session, told.name)
        factories.make_items(session, project, 2, split=Split.TRAIN)
        for _ in range(2):
            factories.make_annotation(session, project, user)
        version = registry.get_version(session, project, told.version)
        version.snapshot_id = build_snapshot(session, project, SMALL, house.settings.home).id
        run = session.get_one(Run, version.run_id)
        run.asked = {"min_train_pairs": 1, "min_test_pairs": 0}
    return told


def test_an_operator_walks_from_a_version_to_its_annotations_and_back(
    house: House, traced: Told, as_user: SignIn
) -> None:
    operator = as_user(house.person(Role.OPERATOR))
    here = f"/lineage/{quote(traced.project)}/{traced.version}"
    shown = operator.get(here).text
    assert "No &lt;i&gt;date&lt;/i&gt;." in shown, "what people write is text"
    assert "Train it again" not in shown
    with house.sessions() as session:
        number = session.get_one(Critique, traced.critique_id).annotation_id
    assert f'href="/lineage/annotation/{number}"' in shown
    back = operator.get(f"/lineage/annotation/{number}").text
    assert f'href="{here}"' in back
    assert "No &lt;i&gt;date&lt;/i&gt;." in back
    base = operator.get(here.replace(traced.version, "policy-v0")).text
    assert "row by row" not in base

    with house.sessions.begin() as session:
        gone = session.get_one(Annotation, number)
        annotations.withdraw(session, number, gone.user)
    tainted = operator.get(here).text
    assert "1 annotation that trained it was withdrawn or erased" in tainted
    only = operator.get(f"{here}?tainted=1").text
    assert only.count('class="asked"') == 1 < tainted.count('class="asked"')
    assert "Withdrawn or erased on" in operator.get(f"/lineage/annotation/{number}").text
    olga = house.person(Role.OPERATOR)
    note = models_tab.detail(*_seen(house, olga, traced))
    assert f'It can be trained again without them: <a href="{here}">' in note
    assert operator.post(f"{here}/rebuild").headers["location"] == here
    assert "It is being trained again without them, in run" in models_tab.detail(*_seen(house, olga, traced))
    with house.sessions() as session:
        run = session.scalars(select(Run).where(Run.cause == f"rebuild 1 of {traced.version}")).all()[-1]
    assert f"in run {run.id}" in operator.get(here).text
    refused = operator.post(f"{here}/rebuild")
    assert refused.status_code == 422
    assert f"is being rebuilt by run {run.id}" in refused.text


def _seen(house: House, name: str, traced: Told) -> tuple[models.VersionView, models.ModelsView]:
    view = models.see_models(house.ctx, name, traced.project, traced.version)
    assert view.selected is not None
    return view.selected, view


def test_an_operator_downloads_the_adapter_with_its_card(house: House, told: Told, as_user: SignIn) -> None:
    operator = as_user(house.person(Role.OPERATOR))
    address = f"/lineage/{quote(told.project)}/{told.version}/adapter.zip"
    weights = random.Random(0).randbytes(2_500_000)
    folder = house.settings.home / "artifacts" / told.project
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "base_model_name_or_path": "/home/me/base"}))
    with house.sessions.begin() as session:
        version = registry.get_version(session, projects.get_project(session, told.project), told.version)
        version.folder, version.sha256 = str(folder.relative_to(house.settings.home)), folder_sha256(folder)
    answer = operator.get(address)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["content-disposition"].endswith(f'{told.version}.zip"')
    with ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.read("adapter/adapter_model.safetensors") == weights
        assert json.loads(archive.read("adapter/adapter_config.json")) == {"r": 4, "base_model_name_or_path": "starter"}
        assert f"# {told.project}: {told.version}" in archive.read("README.md").decode()
    (folder / "adapter_config.json").write_text("{}")
    damaged = operator.get(address, headers={"accept": "text/html"})
    assert (damaged.status_code, "were changed" in damaged.text) == (400, True)
    assert operator.get(address.replace(told.version, "policy-v0")).status_code == 422


def test_nobody_else_sees_where_a_version_comes_from(
    house: House, told: Told, client: TestClient, as_user: SignIn
) -> None:
    with house.sessions.begin() as session:
        number = session.get_one(Critique, told.critique_id).annotation_id
    paths = (f"/lineage/{quote(told.project)}/{told.version}", f"/lineage/annotation/{number}")
    for path in paths:
        assert client.get(path).headers["location"] == f"/login?next={quote(path, safe='')}"
        assert as_user(told.name).get(path).status_code == 403
    with house.sessions.begin() as session:
        closed = session.scalars(select(Project).where(Project.name == told.project)).one()
        closed.members_only = True
    operator = house.person(Role.OPERATOR)
    for path in (*paths, "/lineage/annotation/99999999999999", "/lineage/annotation/policy-v1"):
        assert as_user(operator).get(path).status_code == 404, path
