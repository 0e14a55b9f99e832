"""My annotations: what the page does with them, and with whatever a browser may send."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from feedback_app.handlers import mine, models, people
from feedback_app.pages import mine as page
from feedback_app.pages import models_tab, users_tab
from storage import annotations, projects
from storage.annotations import CritiqueInput, PreferenceInput, RatingInput, RefinementInput, Submission
from storage.enums import Outcome, Role
from storage.errors import Conflict, FeedbackError, Invalid, NotAllowed, NotFound
from storage.history import State
from tests import factories


def _form(outcome="first", strength=2, sides=({}, {})):
    return {"outcome": outcome, "strength": strength, "ranks": [], "sides": list(sides)}


@pytest.fixture
def said(house):
    """(name, project, annotation id) of a person who said everything about one item and little about another."""
    name, project = house.person(), house.project(items=2)
    with house.sessions.begin() as session:
        found, user = projects.get_project(session, project), factories.accounts.get_user(session, name)
        factories.make_annotation(session, found, user)
        lease = factories.make_lease(session, found, user)
        (a, _), (b, _) = lease.completions
        made = annotations.submit(
            session,
            lease.assignment_id,
            user,
            Submission(
                ratings=[RatingInput(a, found.criteria[0].id, 4)],
                preference=PreferenceInput(a, b, Outcome.SECOND, 3),
                critiques=[CritiqueInput(b, "Name the day.", 0, 6, ["vague"], "On Monday.")],
                refinements=[RefinementInput(b, "On Monday.")],
            ),
        )
        return name, project, made.id


def test_the_page_lists_what_counts_and_opens_one_as_it_was_shown(house, said):
    name, project, annotation = said
    view = mine.open_page(house.ctx, name, project, None, None)
    assert (len(view.found.lines), view.one, view.project) == (2, None, project)
    one = mine.open_one(house.ctx, name, str(annotation))
    assert (one.state, one.item.outcome, one.item.strength, one.revising) == (State.COUNTS, Outcome.SECOND, 3, False)
    first, second = one.item.sides
    assert list(first.ratings.values()) == [4]
    assert [(c.text, c.tags, c.fix, c.start, c.end) for c in second.critiques] == [
        ("Name the day.", ("vague",), "On Monday.", 0, 6)
    ]
    assert (first.refinement, second.refinement) == (None, "On Monday.")
    told = mine.said_of(one.opened, one.opened.versions[0])
    assert told["critiques"][0] | {"of": "B", "quote": second.text[:6]} == told["critiques"][0]
    assert told["ratings"] == [["A", view_name(house, project), 4]]


def view_name(house, project):
    with house.sessions() as session:
        return projects.get_project(session, project).criteria[0].name


def test_a_revision_replaces_and_the_history_keeps_both(house, said):
    name, _, annotation = said
    mine.save_draft(house.ctx, name, annotation, 5, _form("tie", None, ({"critiques": [{"text": "half"}]}, {})))
    begun = mine.open_one(house.ctx, name, annotation)
    assert (begun.revising, begun.item.outcome, begun.item.sides[0].critiques[0].text) == (True, Outcome.TIE, "half")
    assert "again" in begun.notice
    after = mine.revise(house.ctx, name, annotation, 3.2, _form("tie", None))
    assert (after.state, after.revising, after.item.outcome) == (State.COUNTS, False, Outcome.TIE)
    versions = [mine.said_of(after.opened, one) for one in after.opened.versions]
    assert [(one["outcome"], one["state"]) for one in versions] == [("tie", "counts"), ("second", "revised")]
    with pytest.raises(Conflict, match="revised in the meantime"):
        mine.revise(house.ctx, name, annotation, 1, _form())
    mine.save_draft(house.ctx, name, annotation, 9, _form())  # a late autosave of the other tab is no error
    assert mine.open_one(house.ctx, name, after.item.assignment_id).revising is False


def test_throwing_a_revision_away_shows_what_counts(house, said):
    name, _, annotation = said
    mine.save_draft(house.ctx, name, annotation, 5, _form("tie", None))
    mine.save_draft(house.ctx, name, annotation, 6, None)
    one = mine.open_one(house.ctx, name, annotation)
    assert (one.revising, one.item.outcome) == (False, Outcome.SECOND)


def test_undo_opens_the_last_one_for_change(house, said):
    name, project, annotation = said
    assert mine.undo(house.ctx, name, project).item.assignment_id == annotation
    view = mine.open_page(house.ctx, name, None, None, True)
    assert (view.one.item.assignment_id, view.one.revising) == (annotation, True)
    with pytest.raises(NotFound, match="nothing to undo"):
        mine.undo(house.ctx, house.person(), project)
    nobody = mine.open_page(house.ctx, house.person(), project, None, True)
    assert (nobody.one, nobody.found.lines) == (None, [])
    assert "nothing to undo" in nobody.notice


def test_taken_back_it_is_listed_as_withdrawn(house, said):
    name, project, annotation = said
    assert mine.withdraw(house.ctx, name, annotation).state is State.WITHDRAWN
    usual = mine.look(house.ctx, name, {"project": project})
    assert annotation not in [line.annotation.id for line in usual.lines]
    gone = mine.look(house.ctx, name, {"state": "withdrawn"})
    assert [line.annotation.id for line in gone.lines] == [annotation]
    with pytest.raises(Conflict):
        mine.withdraw(house.ctx, name, annotation)


def test_nobody_reaches_what_another_said(house, said):
    _, _, annotation = said
    for other in (house.person(), house.person(Role.ADMIN)):
        for call in (
            lambda other=other: mine.open_one(house.ctx, other, annotation),
            lambda other=other: mine.revise(house.ctx, other, annotation, 1, _form()),
            lambda other=other: mine.withdraw(house.ctx, other, annotation),
        ):
            with pytest.raises(NotFound):
                call()
        assert mine.look(house.ctx, other, {}).lines == []
    with pytest.raises(NotAllowed):
        mine.look(house.ctx, None, {})


def test_a_project_that_closed_lets_its_people_take_back_but_not_say_more(house, said):
    name, project, annotation = said
    with house.sessions.begin() as session:
        projects.get_project(session, project).members_only = True
    with pytest.raises(NotAllowed, match="closed to you"):
        mine.revise(house.ctx, name, annotation, 1, _form())
    assert mine.withdraw(house.ctx, name, annotation).state is State.WITHDRAWN


def test_pages_follow_each_other_through_what_the_browser_sends_back(house):
    name, project = house.person(), house.project(items=23)
    with house.sessions.begin() as session:
        found, user = projects.get_project(session, project), factories.accounts.get_user(session, name)
        ids = [factories.make_annotation(session, found, user).id for _ in range(23)]
    first = page._list_value(mine.look(house.ctx, name, {}), more=False)
    rest = page._list_value(mine.look(house.ctx, name, {}, first["following"]), more=True)
    assert [line["id"] for line in [*first["lines"], *rest["lines"]]] == ids[::-1]
    assert (len(first["lines"]), rest["following"], first["filtered"]) == (20, None, False)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert mine.look(house.ctx, name, {"since": tomorrow}).lines == []


@pytest.mark.parametrize(
    ("wanted", "after"),
    [
        (None, None),
        ("text", None),
        ({"state": "mine"}, None),
        ({"text": 5}, None),
        ({"text": "x" * 201}, None),
        ({"since": "yesterday"}, None),
        ({"since": "2026-05-01"}, None),
        ({"until": 5}, None),
        ({"project": "no such project"}, None),
        ({}, "x"),
        ({}, ["2026-05-01T00:00:00+00:00"]),
        ({}, ["2026-05-01T00:00:00+00:00", "x"]),
    ],
)
def test_a_malformed_search_is_refused_in_one_line(house, wanted, after):
    with pytest.raises(FeedbackError) as caught:
        mine.look(house.ctx, house.person(), wanted, after)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("annotation", [None, "", "x", -1, 1.5, True, 2**40, [], {}])
def test_a_made_up_annotation_is_refused(house, annotation):
    name = house.person()
    for call in (mine.open_one, mine.withdraw):
        with pytest.raises((Invalid, NotFound)):
            call(house.ctx, name, annotation)


@pytest.mark.usefixtures("idle_queue")
def test_the_models_tab_says_what_is_tainted_by_how_much_and_since_when(house, said):
    name, project, annotation = said
    operator = house.person(Role.OPERATOR)
    with house.sessions.begin() as session:
        found = projects.get_project(session, project)
        snapshot = factories.make_snapshot(session, found, [session.get_one(factories.Annotation, annotation)])
        factories.make_version(session, found, snapshot=snapshot)
    before = models_tab.values(models.see_models(house.ctx, operator, project, "policy-v1"))
    assert "tainted" not in "".join(map(str, before)).lower()
    mine.withdraw(house.ctx, name, annotation)
    listed, _, detail, *_ = models_tab.values(models.see_models(house.ctx, operator, project, "policy-v1"))
    assert listed.count(">tainted<") == 1
    assert "1 annotation that trained it was withdrawn or erased" in detail
    assert "now" in detail


def test_an_operator_erases_a_disabled_person_and_is_told_what_stays(house, said):
    name, project, annotation = said
    operator = house.person(Role.OPERATOR)
    with house.sessions.begin() as session:
        found = projects.get_project(session, project)
        folder = factories.make_snapshot(session, found, [session.get_one(factories.Annotation, annotation)]).folder
    active, _ = users_tab.values(people.see_users(house.ctx, operator))
    assert f'data-user="{name}" data-action="erase"' not in active, "the account is closed first"
    people.act(house.ctx, operator, name, "disable")
    closed, _ = users_tab.values(people.see_users(house.ctx, operator))
    assert f'data-user="{name}" data-action="erase"' in closed
    view = people.act(house.ctx, operator, name, "erase")
    listed, told = users_tab.values(view)
    assert view.erased.name in listed
    assert f">{name}<" not in listed
    assert folder in told
    with pytest.raises(Conflict, match="erased"):
        people.act(house.ctx, operator, view.erased.name, "enable")
    with pytest.raises(NotAllowed):
        people.act(house.ctx, operator, house.person(Role.OPERATOR), "erase")
