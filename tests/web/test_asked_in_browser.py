"""What people are asked back, in Chromium, with keys alone: was it fixed, is the rewrite right, what came of it all."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import select, update

from storage import accounts, annotations, projects, refinements, registry, resolution
from storage.annotations import CritiqueInput, Submission
from storage.enums import CompletionOrigin, ItemKind, RefinementStatus, Role, RunKind
from storage.models import Annotation, Critique, Refinement, Resolution, Run
from storage.refinements import Selected
from tests import factories
from tests.browser import picture
from tests.web.by_keys import Keyboard
from tests.web.looking import COUNT_ANSWERS, until_answered, url_of, wait_for

__all__ = ["picture"]

SKIP = "form[action$=pass] button"
ASKED = (
    ("Where is my parcel? It should have been here on Monday.", "Dear Ana, your parcel left us. Regards", ["tone"]),
    ("Can I still return the kettle?", "You can not return the kettle any more.", ["wrong fact"]),
    ("我的订单 1234 什么时候到？", "您的订单正在路上。", []),
    ("The lamp is broken.", "We are sorry to hear that the lamp is broken. Send it back to us.", ["tone", "vague"]),
    ("Do you ship to Norway?", "Yes.", ["too short"]),
)


@pytest.fixture
def asked_back(house, idle_queue):
    """A person who criticised five completions, each rewritten by a model and answered anew by a promoted version."""
    name, project_name = house.person(), house.project()
    with house.sessions.begin() as session:
        project, user = projects.get_project(session, project_name), accounts.get_user(session, name)
        # A person works in every open project of this store: what other tests left to review would come too.
        left = update(Refinement).where(Refinement.status == RefinementStatus.UNREVIEWED)
        session.execute(left.values(status=RefinementStatus.REJECTED))
        projects.update_project(session, project, annotation_settings={"review_share": 1})
        base = registry.base_version(session, project, "starter")
        run = Run(project_id=project.id, kind=RunKind.REFINE, config={})
        session.add(run)
        session.flush()
        answers = {}
        version = factories.make_version(session, project)
        for text, wrote, tags in ASKED:
            prompt = factories.make_prompt(session, project, text)
            factories.make_item(session, project, prompt=prompt, texts=[wrote], version=base, kind=ItemKind.SINGLE)
            lease = factories.make_lease(session, project, user, rng=random.Random(0))
            ((completion, shown),) = lease.completions
            marked = (0, len(shown) // 2) if tags else (None, None)
            said = CritiqueInput(completion, f"This does not help: {text}", *marked, tags, fix="Name a day.")
            critique = annotations.submit(session, lease.assignment_id, user, Submission(critiques=[said])).critiques[0]
            selected = Selected(completion, (critique.id,), f"{wrote} It comes on Tuesday.", base.id)
            refinements.add_model_refinements(session, run, [selected])
            answers[prompt.id] = factories.make_completion(
                session, prompt, f"On Tuesday. {wrote}", origin=CompletionOrigin.MODEL, model_version_id=version.id
            )
        registry.promote(session, version, None, "better")
        resolution.enter_answers(session, resolution.queue_answers(session, project), version, answers)
    return name, project_name


@pytest.fixture
def answered(house):
    """What became of the person's questions: verdicts in the order asked, and rewrites by status."""

    def found(name):
        with house.sessions() as session:
            user = accounts.get_user(session, name)
            asked = select(Resolution).join(Critique).join(Annotation).where(Annotation.user_id == user.id)
            rows = session.scalars(asked.order_by(Resolution.id)).all()
            reviewed = select(Refinement.status).where(Refinement.reviewer_id == user.id)
            return [row.verdict and row.verdict.value for row in rows], sorted(session.scalars(reviewed))

    return found


def test_everything_asked_back_is_answered_with_keys(house, asked_back, answered, visit, picture):
    name, project = asked_back
    with visit(name, url_of(project, "questions").replace("/?", "?")) as page:
        keys = Keyboard(page)

        def number():
            shown = page.locator(".answers input[name=item]")
            return shown.input_value() if shown.count() else None

        def press(selector):
            """Go to a button with Tab, press it, and wait for the next page."""
            keys.tab_to(selector)
            with page.expect_navigation():
                keys.press("Enter")

        def go(selector):
            before = number()
            press(selector)
            assert number() != before

        picture(page, "fixed")
        for verdict in ("fixed", "partly", "not", "worse"):
            go(f"button[value={verdict}]")
        go(SKIP)
        assert answered(name) == (["fixed", "partly", "not", "worse", None], [])

        picture(page, "right now")
        go("button[value=accepted]")
        go("button[value=rejected]")
        old = page.inner_text("#old")
        keys.tab_to("textarea")
        keys.press("Control+a")
        keys.write(old)
        asked = number()
        press("button[value=edited]")
        assert number() == asked
        assert "original completion again" in page.inner_text(".problem")
        picture(page, "refused")
        keys.tab_to("textarea")
        assert page.input_value("textarea") == old, "what was typed is kept"
        keys.press("Control+End")
        keys.write(" It comes on Wednesday: 1 parcel.")
        go("button[value=edited]")
        for _ in range(2):
            go(SKIP)
        assert number() is None
        assert answered(name)[1] == ["accepted", "edited", "rejected"]
        assert page.get_by_text("Nothing is waiting").is_visible()
        picture(page, "nothing left")

        page.goto(page.url.split("/questions")[0] + "/critiques")
        story = page.inner_text("main")
        for line in (
            "a person edited it",
            "a person rejected it",
            "worse, you said",
            "not fixed",
            "not been asked yet",
        ):
            assert line in story
        keys.to_top()
        keys.tab_to("summary")
        keys.press("Enter")
        assert page.locator("details[open] ins").first.is_visible()
        picture(page, "your critiques")
        assert keys.unseen == set()
    with visit(house.person(Role.OPERATOR), url_of(project, "operate")) as page:
        page.get_by_role("tab", name="Models").click()
        page.get_by_text("25% of 4 (95 %:").first.wait_for()
        assert page.get_by_text("tone: 50% of 2").count() == 1
        picture(page, "resolved")


def test_wordings_are_changed_refused_and_put_back(house, visit):
    name, project = house.person(Role.OPERATOR), house.project()

    def stored():
        with house.sessions() as session:
            found = projects.get_project(session, project)
            return found.guidelines, (found.annotation_settings or {}).get("templates", {})

    with visit(name, url_of(project, "operate"), COUNT_ANSWERS) as page:
        page.get_by_role("tab", name="Project").click()
        page.locator("#op-due p").wait_for()
        page.locator("#op-guidelines textarea").fill("Be kind.")
        with until_answered(page):
            page.click("#op-save-project")
        assert stored()[0] == "Be kind."
        assert set(stored()[1].values()) == {None, "yes", "no"}, "wordings nobody opened stay ours"
        page.click("#op-wordings button")
        refine = page.locator("#op-wording-refine textarea")
        ours = refine.input_value()
        refine.fill("Once more: {critique} {colour}")
        with until_answered(page):
            page.click("#op-save-project")
        page.get_by_text("nothing is put in for {colour}; choose from: {critique}, {span}, {tags}").wait_for()
        refine.fill("Once more: {critique}")
        with until_answered(page):
            page.click("#op-save-project")
        page.get_by_text("The project is saved.").last.wait_for()
        assert stored()[1]["refine"] == "Once more: {critique}"
        page.click("#op-wordings-reset")
        wait_for(lambda: refine.input_value() == ours)
        page.click("#op-save-project")
        wait_for(lambda: stored()[1]["refine"] is None)
