"""Questions beside the queue, "Your critiques", and the resolution rate on the models page."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from feedback_app.handlers import annotate, models
from feedback_app.handlers.review import Piece, word_changes
from feedback_app.i18n import Reader, reading
from feedback_app.pages.resolved import resolved
from storage import accounts, annotations, projects, refinements, registry, resolution
from storage.annotations import CritiqueInput, Submission
from storage.configs import GenerateConfig, parse
from storage.enums import CompletionOrigin, RefinementStatus, Role, RunKind, Split
from storage.models import Refinement, Resolution, Run
from storage.refinements import Selected
from storage.snapshots import build_snapshot
from tests import factories
from tests.storage.test_snapshot_diff import SMALL
from tests.web.conftest import House

SignIn = Callable[[str], TestClient]


class Told(NamedTuple):
    """A person whose critique was refined by a model, trained a version, and was answered by it."""

    name: str
    project: str
    version: str
    critique_id: int


@pytest.fixture
def told(house: House, idle_queue: None) -> Told:
    name, project_name = house.person(), house.project()
    with house.sessions.begin() as session:
        # A person works in every open project of this store: what other tests left to review would come first.
        left = update(Refinement).where(Refinement.status == RefinementStatus.UNREVIEWED)
        session.execute(left.values(status=RefinementStatus.REJECTED))
        project, user = projects.get_project(session, project_name), accounts.get_user(session, name)
        projects.update_project(session, project, annotation_settings={"review_share": 1, "resolution_share": 0})
        base = registry.base_version(session, project, "starter")
        item = factories.make_item(
            session, project, split=Split.TRAIN, texts=["We <b>cannot</b> say.", "Wait."], version=base
        )
        completion = item.members[0].completion
        lease = factories.make_lease(session, project, user, rng=random.Random(0))
        assert lease.item_id == item.id
        said = CritiqueInput(completion.id, "No <i>date</i>.", 3, 6, ["tone"], "Say Tuesday.")
        annotation = annotations.submit(session, lease.assignment_id, user, Submission(critiques=[said]))
        critique = annotation.critiques[0]
        run = Run(project_id=project.id, kind=RunKind.REFINE, config={})
        session.add(run)
        session.flush()
        chosen = Selected(completion.id, (critique.id,), "We <b>can</b> say: Tuesday.", base.id)
        refinements.add_model_refinements(session, run, [chosen])
        snapshot = build_snapshot(session, project, SMALL, house.settings.home)
        version = factories.make_version(session, project, snapshot=snapshot)
        registry.promote(session, version, None, "better")
        asked = resolution.queue_answers(session, project)
        assert asked is not None
        assert parse(GenerateConfig, asked.config).critique_ids == (critique.id,)
        new = factories.make_completion(
            session, item.prompt, "It comes on Tuesday.", origin=CompletionOrigin.MODEL, model_version_id=version.id
        )
        resolution.enter_answers(session, asked, version, {item.prompt_id: new})
        factories.make_item(session, project, version=version)
        return Told(name, project.name, version.name, critique.id)


def form(html: str, verdict: str, **values: Any) -> dict[str, Any]:
    """What the page's form sends with a button."""
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', html))
    return {**hidden, "verdict": verdict, **values}


def test_a_person_answers_what_waits_for_them_and_reads_what_came_of_it(
    house: House, told: Told, as_user: SignIn
) -> None:
    browser = as_user(told.name)
    shown = browser.get(f"/questions?project={told.project}").text
    assert "Is it fixed?" in shown
    assert "It comes on Tuesday." in shown
    assert "No &lt;i&gt;date&lt;/i&gt;." in shown, "what people write is text"
    assert "<mark>" in shown
    answered = browser.post("/questions/answer", data=form(shown, "fixed"))
    assert (answered.status_code, answered.headers["location"].split("?")[0]) == (303, "/questions")

    review = browser.get("/questions").text
    assert "Is this right now?" in review
    assert "<del>" in review
    assert "<ins>" in review
    refused = browser.post("/questions/answer", data=form(review, "edited", text="We <b>cannot</b> say."))
    assert refused.status_code == 422
    assert "original completion again" in refused.text
    assert browser.post("/questions/answer", data=form(review, "fixed")).status_code == 422
    saved = browser.post("/questions/answer", data=form(review, "edited", text="On Tuesday.\r\nAt nine."))
    assert saved.status_code == 303
    assert "Nothing is waiting" in browser.get("/questions").text
    with house.sessions() as session:
        row = session.scalars(select(Refinement).where(Refinement.run_id.is_not(None)).order_by(Refinement.id.desc()))
        newest = row.first()
        assert newest is not None
        assert newest.status is RefinementStatus.EDITED
        verdicts = select(Resolution.verdict).where(Resolution.critique_id == told.critique_id)
        assert [one.value for one in session.scalars(verdicts) if one] == ["fixed"]

    story = browser.get("/critiques").text
    for words in (
        "a person edited it",
        f"Trained {told.version} (champion) in run",
        f"{told.version} writes something else: fixed, you said",
        "Say Tuesday.",
    ):
        assert words in story
    assert "You have not criticised anything yet." in as_user(house.person()).get("/critiques").text
    with reading(Reader("zh-CN")):
        view = models.see_models(house.ctx, house.person(Role.OPERATOR), told.project, told.version)
        assert view.selected is not None
        assert str(dict(resolved(view.selected.rates))["已解决"]).startswith("1 个中的 100%")


def test_nobody_answers_for_another_and_a_question_can_be_passed_over(
    told: Told, house: House, as_user: SignIn
) -> None:
    mine, theirs = as_user(told.name), as_user(house.person())
    shown = mine.get("/questions").text
    assert theirs.post("/questions/answer", data=form(shown, "worse")).status_code == 422
    assert theirs.post("/questions/pass", data=form(shown, "")).status_code == 422
    assert mine.post("/questions/pass", data=form(shown, "")).status_code == 303
    assert "Is this right now?" in mine.get("/questions").text
    for path in ("/questions", "/critiques"):
        assert TestClient(house.app, follow_redirects=False).get(path).headers["location"].startswith("/login?next=")


def test_the_annotate_page_asks_now_and_then_and_when_nothing_else_is_left(told: Told, house: House) -> None:
    view = annotate.open_page(house.ctx, told.name, told.project)
    assert view.item is not None, "a reload never asks"
    said = {"sides": [{"ratings": {}}, {"ratings": {}}], "outcome": "first", "strength": 2}
    after = annotate.submit(house.ctx, told.name, told.project, view.item.assignment_id, 3, said)
    assert (after.item, after.waiting, after.submitted) == (None, "asked", True)
    assert annotate.open_page(house.ctx, told.name, told.project).waiting == "asked"
    with house.sessions.begin() as session:
        factories.make_item(session, projects.get_project(session, told.project))
    assert annotate.open_page(house.ctx, told.name, told.project).item is not None


def test_changes_are_told_word_by_word_in_every_script() -> None:
    assert word_changes("It is late.", "It is on time.") == [
        Piece("same", "It is "), Piece("gone", "late"), Piece("new", "on time"), Piece("same", ".")
    ]  # fmt: skip
    assert word_changes("明天到。", "今天到。") == [Piece("gone", "明"), Piece("new", "今"), Piece("same", "天到。")]
    assert word_changes("", "") == []
    assert [piece.kind for piece in word_changes("a " * 3000, "b " * 3000)] == ["gone", "new"]
