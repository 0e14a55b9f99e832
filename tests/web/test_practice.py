"""Practice, gold items, checks and pauses: the annotate page, the Gold tab, and one whole way through in a browser."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import select

from feedback_app.handlers import annotate, gold, mine
from feedback_app.pages import gold_tab
from feedback_app.pages import mine as mine_page
from feedback_app.pages import practice as lesson_part
from storage import checks
from storage.enums import AnnotationStatus, Outcome, Role
from storage.errors import Invalid, NotAllowed, NotFound
from storage.models import Annotation, Assignment, Item, Standing, utc_now
from storage.standings import Stage
from tests import factories
from tests.storage import golden
from tests.web.looking import ITEM, annotation_of, next_item, url_of

pytestmark = pytest.mark.usefixtures("idle_queue")
WHY = "The right one names the *day*; the other says nothing that helps."


def prepare(house, marked=2, **settings):
    """A project with gold items, whose older completion is better and rated 5, and two ordinary items."""
    name = house.project(items=2, guidelines="Prefer the reply that **names the day**.")
    with house.sessions.begin() as session:
        project = factories.projects.get_project(session, name)
        golden.make_gold(session, project, marked, explanation=WHY)
        golden.ask(session, project, **{"practice_items": marked, **settings})
    return name


def answer(view, *, right=True):
    """The form that says what is right, or not."""
    sides = view.item.sides
    older = min(range(2), key=lambda number: sides[number].completion_id)
    outcome = Outcome.FIRST if (older == 0) is right else Outcome.SECOND
    ratings = [{}, {}]
    ratings[older] = {str(view.criteria[0].id): 5 if right else 1}
    return {"outcome": outcome.value, "sides": [{"ratings": one} for one in ratings]}


def test_a_new_annotator_learns_fails_and_passes(house):
    name, project = house.person(), prepare(house)
    view = annotate.open_page(house.ctx, name, project)
    assert (view.item, view.lesson.state, view.lesson.round.size) == (None, "intro", 2)
    assert "2 items" in lesson_part.values(view.lesson, view.guidelines, view.criteria)[0]

    def round_of(*rightly):
        view = annotate.practise(house.ctx, name, project)
        for right in rightly:
            assert view.lesson.state == "item"
            told = annotate.submit(house.ctx, name, project, view.item.assignment_id, 2.0, answer(view, right=right))
            assert (told.item, told.submitted) == (None, False)
            assert told.lesson.answers[-1].judged.score == (1 if right else 0)
            assert told.lesson.answers[-1].explanation == WHY
            view = annotate.open_page(house.ctx, name, project) if told.lesson.state == "answer" else told
        return view

    failed = round_of(True, False)
    assert (failed.lesson.state, failed.lesson.round.score, failed.lesson.round.attempts) == ("failed", 0.5, 1)
    again = annotate.open_page(house.ctx, name, project)  # a reload shows it still
    head, text, _ = lesson_part.values(again.lesson, again.guidelines, again.criteria)
    assert "50% was right" in head
    assert head.count("<table") == 1
    assert WHY in text
    assert round_of(True, True).lesson.state == "passed"
    work = annotate.practise(house.ctx, name, project)
    assert (work.item is not None, work.lesson, work.progress.submitted_total) == (True, None, 0)
    with house.sessions() as session:
        assert session.get_one(Item, session.get_one(Assignment, work.item.assignment_id).item_id).gold is None


def test_a_paused_person_is_told_so_and_what_they_hold_waits(house):
    name, project = house.person(), prepare(house, practice_items=0, check_pause=True)
    view = annotate.open_page(house.ctx, name, project)
    with house.sessions.begin() as session:
        found, user = factories.projects.get_project(session, project), factories.accounts.get_user(session, name)
        session.add(Standing(project_id=found.id, user_id=user.id, paused_at=utc_now()))
    assert annotate.open_page(house.ctx, name, project).waiting == "paused"
    with pytest.raises(NotAllowed, match="you are paused"):
        annotate.submit(house.ctx, name, project, view.item.assignment_id, 1.0, answer(view))
    operator = house.person(Role.OPERATOR)
    (line,) = gold.see_gold(house.ctx, operator, project).people
    assert line.stage is Stage.PAUSED
    assert gold.decide(house.ctx, operator, project, name, "lift").people[0].stage is Stage.WORK
    assert annotate.open_page(house.ctx, name, project).item is not None


def test_without_gold_items_left_practice_waits_for_an_operator(house):
    name, project, operator = house.person(), prepare(house, 1), house.person(Role.OPERATOR)
    (line,) = gold.see_gold(house.ctx, operator, project).lines
    gold.unmark(house.ctx, operator, project, line.item.id)
    assert annotate.open_page(house.ctx, name, project).waiting == "no practice"


def test_an_operator_marks_asks_and_decides(house):
    operator, name, project = house.person(Role.OPERATOR), house.person(), house.project(items=1)
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        user = factories.accounts.get_user(session, operator)
        lease = factories.make_lease(session, found, user)
        said = factories.annotations.submit(session, lease.assignment_id, user, factories.full_submission(lease, found))

    def see(*given):
        return gold.mark(house.ctx, operator, project, *given)

    with pytest.raises(Invalid, match="choose an annotation"):
        see(None, "", {"tolerance": 1})
    with pytest.raises(NotFound):
        see(str(said.id + 9999), "", {"tolerance": 1})
    with pytest.raises(Invalid, match="tolerance"):
        see(str(said.id), "", {"tolerance": -1})
    with pytest.raises(Invalid, match="as many gold items"):
        gold.save_settings(house.ctx, operator, project, _asked(practice_items=1))
    assert [one.annotation.id for one in gold.see_gold(house.ctx, operator, project).own] == [said.id]
    view = see(None, str(said.item_id), {"tolerance": 0, "tie_allowed": True, "explanation": WHY})
    (line,) = view.lines
    assert (line.standard.comparison.tie_allowed, line.standard.explanation) == (True, WHY)
    html = gold_tab.values(view)[len(_asked())]
    assert "or a tie" in html
    assert "vague" in html
    view = gold.save_settings(house.ctx, operator, project, _asked(practice_items=1, check_mark=60))
    assert (view.settings.practice_items, view.settings.practice_pass, view.settings.check_mark) == (1, 0.8, 0.6)
    assert annotate.open_page(house.ctx, name, project).lesson.state == "intro"
    view = gold.decide(house.ctx, operator, project, name, "waive")
    assert "waived" in gold_tab.values(view)[-2]
    for chosen, sent in ((name, False), ("", False), ("somebody else", True)):
        args = gold_tab.values(view, ("", "", chosen))[-1]._constructor_args[0]
        assert ("value" in args) == sent, "a look that comes late clears no choice that holds"
    assert annotate.open_page(house.ctx, name, project).lesson is None
    gold.decide(house.ctx, operator, project, name, "reset")
    assert annotate.open_page(house.ctx, name, project).lesson.state == "intro"
    with pytest.raises(Invalid, match="choose a person"):
        gold.decide(house.ctx, operator, project, "", "waive")
    for call in (
        lambda: gold.see_gold(house.ctx, name, project),
        lambda: gold.mark(house.ctx, name, project, str(said.id), "", {}),
        lambda: gold.decide(house.ctx, name, project, name, "waive"),
    ):
        with pytest.raises(NotAllowed):
            call()


def _asked(**changed):
    return {
        "practice_items": 0, "practice_pass": 80, "practice_existing": False, "check_every": 0, "check_mark": 70,
        "show_agreement": True,
        "check_pause": False, **changed,
    }  # fmt: skip


def test_low_check_scores_stand_out_on_the_tab(house):
    name, project, operator = (
        house.person(),
        prepare(house, 6, practice_items=0, check_every=2),
        house.person(Role.OPERATOR),
    )
    with house.sessions.begin() as session:
        found, user = factories.projects.get_project(session, project), factories.accounts.get_user(session, name)
        factories.make_items(session, found, 40)
        rng = random.Random(3)
        while checks.check_scores(session, found).get(user.id, (0, 0))[1] < checks.ENOUGH:
            lease = factories.items.lease_next(session, found, user, rng=rng)
            factories.annotations.submit(session, lease.assignment_id, user, golden.wrong(lease, found))
    people = gold_tab.values(gold.see_gold(house.ctx, operator, project))[-2]
    assert "0% of 5" in people
    assert "too low" in people


def test_from_the_guidelines_through_a_failed_round_to_the_queue(house, visit):
    """By keys alone: read, judge, be told what is right, fail, practise again, pass, annotate."""
    name, project = house.person(), prepare(house)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector("#fb-lesson h2:has-text('Practice first')")
        assert "names the day" in page.inner_text("#fb-lesson-text")
        page.keyboard.press("Enter")
        for rightly in (True, False, True, True):
            page.wait_for_selector(ITEM + '[data-lesson="item"]')
            assert "Practice item" in page.inner_text(".fb-progress")
            assert not page.is_visible("#fb-skip")
            judge(house, page, name, right=rightly)
            page.wait_for_selector('#fb-stage[data-lesson="shown"]', state="attached")
            page.wait_for_selector("#fb-lesson h2")
            title = page.inner_text("#fb-lesson h2")
            if title in ("Right", "Not right"):
                assert title == ("Right" if rightly else "Not right")
                assert "names the day" in page.inner_text("#fb-lesson-text")
                assert page.is_visible("#fb-side-a .fb-text")  # what was answered stays in view
                assert not page.is_visible("#fb-actions")
                page.keyboard.press("3")  # no key reaches it any more
            elif title == "Not passed yet":
                assert "50% was right, 80% passes" in page.inner_text("#fb-lesson")
            page.keyboard.press("Enter")
        page.wait_for_selector(ITEM + ":not([data-lesson])")
        page.keyboard.press("3")
        arrived = next_item(page)
        page.keyboard.press("Control+Enter")
        arrived()
        assert "1 today" in page.inner_text(".fb-progress")
    assert annotation_of(house, name).preferences[0].outcome is Outcome.TIE
    with house.sessions() as session:
        user = factories.accounts.get_user(session, name)
        practised = session.scalars(
            select(Annotation).where(Annotation.user_id == user.id, Annotation.status == AnnotationStatus.PRACTISED)
        ).all()
    assert [one.gold_score for one in practised] == [1, 0, 1, 1]


def judge(house, page, name, *, right):
    """Choose and rate on the page by what the store says is right, and submit with the keyboard."""
    assignment_id = int(page.get_attribute("#fb-stage", "data-assignment"))
    with house.sessions() as session:
        user = factories.accounts.get_user(session, name)
        order = factories.items.own_assignment(session, assignment_id, user).shown_order
    older = order.index(min(order))
    side = "ab"[older]
    fresh = "() => window.feedback.kind?.() === 'pair' && !document.querySelector('.fb-verdict [aria-pressed=true]')"
    page.wait_for_function(fresh)
    page.keyboard.press("12"[older] if right else "12"[1 - older])
    value = 5 if right else 1
    page.click(f"#fb-side-{side} .fb-rating:first-child label:nth-of-type({value})")
    page.keyboard.press("Control+Enter")


def test_the_gold_tab_in_the_browser(house, visit):
    project, operator = prepare(house, practice_items=0), house.person(Role.OPERATOR)
    name = house.person()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        golden.ask(session, found, practice_items=2, check_every=10)
        golden.practise(session, found, factories.accounts.get_user(session, name), True, False)
    with visit(operator, url_of(project, "operate")) as page:
        page.click("role=tab[name='Gold']")
        page.wait_for_selector("#op-gold-items table")
        assert "not passed: 50%, attempts: 1" in page.inner_text("#op-gold-people")
        page.fill("#op-gold-person input", name)
        page.get_by_role("option", name=name, exact=True).click()
        page.click("#op-gold-waive")
        page.wait_for_selector("#op-gold-people >> text=waived")
        page.wait_for_function("() => document.querySelector('#op-check-every input').value === '10'")


def test_people_see_their_own_work_and_agreement_only_where_it_is_shown(house):
    ann, bob, project = house.person(), house.person(), house.project(items=2, overlap=2)
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        golden.ask(session, found, daily_target=5)
        for name in (ann, bob):
            user = factories.accounts.get_user(session, name)
            for _ in range(2):
                lease = factories.make_lease(session, found, user)
                ids = sorted(one for one, _ in lease.completions)
                said = factories.annotations.PreferenceInput(*ids, Outcome.FIRST, 2)
                submission = factories.annotations.Submission(preference=said, seconds_spent=8.0)
                factories.annotations.submit(session, lease.assignment_id, user, submission)
    view = mine.open_page(house.ctx, ann, project, None, None)
    assert (view.work, view.target, view.agreement) == ((2, 2, 2, 1, 8.0), 5, None)
    assert "2 of 5" in mine_page._work(view)
    with house.sessions.begin() as session:
        golden.ask(session, factories.projects.get_project(session, project), show_agreement=True)
    view = mine.open_page(house.ctx, ann, project, None, None)
    assert view.agreement == (2, 2)
    assert "100% of 2" in mine_page._work(view)
