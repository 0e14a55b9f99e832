"""What the annotate page does with items, drafts and whatever a browser may send."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from feedback_app.handlers import annotate
from feedback_app.handlers.annotate_form import CritiqueForm, parse_form
from storage import annotations
from storage.enums import AnnotationStatus, ItemKind, ItemStatus, Outcome
from storage.errors import FeedbackError, Invalid, NotFound
from storage.models import Annotation, Item
from tests import factories


def _form(outcome="first", strength=2, ratings=({}, {}), critiques=("", ""), refinements=("", ""), ranks=()):
    """What the browser sends; a critique is a text, or a list of objects."""
    sides = [
        {
            "ratings": ratings[n],
            "critiques": [{"text": critiques[n]}] if isinstance(critiques[n], str) else critiques[n],
            "refinement": refinements[n],
        }
        for n in range(len(ratings))
    ]
    return {"outcome": outcome, "strength": strength, "ranks": list(ranks), "sides": sides}


@pytest.fixture
def desk(house):
    """An annotator in front of a project with three items."""
    return house.person(), house.project(items=3)


def _stored(house, name):
    with house.sessions() as session:
        user = factories.accounts.get_user(session, name)
        rows = session.scalars(select(Annotation).where(Annotation.user_id == user.id)).all()
        for row in rows:
            _ = (row.ratings, row.preferences, row.critiques, row.refinements, row.rankings)
        return rows


def test_a_submit_is_stored_as_said_and_the_next_item_comes(house, desk):
    name, project = desk
    first = annotate.open_page(house.ctx, name, project)
    a, b = first.item.sides
    criterion = first.criteria[0].id
    form = _form(
        ratings=({str(criterion): 5}, {str(criterion): "2"}),
        critiques=("", "  Too vague.  "),
        refinements=(a.text, "Better."),
    )
    after = annotate.submit(house.ctx, name, project, str(first.item.assignment_id), 12.34, form)
    assert after.item.assignment_id != first.item.assignment_id
    assert after.progress.submitted_today == 1
    (row,) = _stored(house, name)
    assert row.status is AnnotationStatus.SUBMITTED
    assert row.seconds_spent == 12.3
    (preference,) = row.preferences
    assert (preference.first_id, preference.second_id) == (a.completion_id, b.completion_id)
    assert (preference.outcome, preference.strength) == (Outcome.FIRST, 2)
    assert {(one.completion_id, one.value) for one in row.ratings} == {(a.completion_id, 5), (b.completion_id, 2)}
    assert [(one.completion_id, one.text) for one in row.critiques] == [(b.completion_id, "Too vague.")]
    # The untouched prefill of A is no refinement.
    assert [one.completion_id for one in row.refinements] == [b.completion_id]


def test_a_second_submit_stores_nothing_and_shows_the_next_item(house, desk):
    name, project = desk
    assignment = annotate.open_page(house.ctx, name, project).item.assignment_id
    after = annotate.submit(house.ctx, name, project, assignment, 1, _form())
    again = annotate.submit(house.ctx, name, project, assignment, 1, _form("second"))
    assert "already" in again.notice
    assert again.item.assignment_id == after.item.assignment_id
    assert len(_stored(house, name)) == 1


def test_a_pair_without_a_verdict_is_not_taken(house, desk):
    name, project = desk
    assignment = annotate.open_page(house.ctx, name, project).item.assignment_id
    with pytest.raises(Invalid, match="choose A, B, tie or both bad"):
        annotate.submit(house.ctx, name, project, assignment, 1, _form(None, critiques=("good", "")))
    assert annotate.open_page(house.ctx, name, project).item.assignment_id == assignment


def test_a_single_completion_is_rated_without_a_verdict(house):
    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        factories.make_items(session, factories.projects.get_project(session, project), 1, kind=ItemKind.SINGLE)
    view = annotate.open_page(house.ctx, name, project)
    assert len(view.item.sides) == 1
    form = _form(None, None, ratings=({str(view.criteria[0].id): 3}, {}), critiques=("fine", ""))
    done = annotate.submit(house.ctx, name, project, view.item.assignment_id, None, form)
    assert (done.item, done.waiting) == (None, "being written")
    (row,) = _stored(house, name)
    assert (len(row.ratings), len(row.critiques), row.preferences) == (1, 1, [])


def test_nobody_touches_the_item_of_another(house, desk):
    name, project = desk
    assignment = annotate.open_page(house.ctx, name, project).item.assignment_id
    other = house.person()
    with pytest.raises(NotFound):
        annotate.submit(house.ctx, other, project, assignment, 1, _form())
    with pytest.raises(NotFound):
        annotate.skip(house.ctx, other, project, assignment)
    with pytest.raises(NotFound):
        annotate.flag(house.ctx, other, project, assignment, "spam")
    annotate.save_draft(house.ctx, other, assignment, 1, _form())
    assert annotate.open_page(house.ctx, name, project).item.outcome is None


def _side(**fields):
    return {"sides": [fields]}


@pytest.mark.parametrize(
    "form",
    [
        None,
        [],
        "first",
        {"outcome": "third"},
        {"outcome": ["first"]},
        {"outcome": "first", "strength": 4},
        {"outcome": "first", "strength": True},
        {"sides": {}},
        {"sides": [None]},
        {"sides": [{}] * 9},
        {"ranks": "1,2"},
        {"ranks": [1.5]},
        {"ranks": [1] * 9},
        _side(ratings=[1, 2]),
        _side(ratings={"x": 1}),
        _side(ratings={"1": 2.5}),
        _side(ratings={"1": -1}),
        _side(ratings={"1": "9" * 30}),
        _side(refinement=5),
        _side(critiques="bad"),
        _side(critiques=["bad"]),
        _side(critiques=[{}] * 101),
        _side(critiques=[{"text": 1}]),
        _side(critiques=[{"text": "a", "tags": "rude"}]),
        _side(critiques=[{"text": "a", "tags": ["x" * 201]}]),
        _side(critiques=[{"text": "a", "start": "a", "end": 2}]),
        _side(critiques=[{"text": "a", "start": -1, "end": 2}]),
    ],
)
def test_whatever_a_browser_sends_gives_one_line_for_people(form):
    with pytest.raises(Invalid) as caught:
        parse_form(form)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ratings", "critiques"),
    [(({"1": 6}, {}), ("", "")), (({"999999": 1}, {}), ("", "")), (({}, {}), ("x" * 20_001, ""))],
)
def test_values_out_of_range_store_nothing(house, desk, ratings, critiques):
    name, project = desk
    view = annotate.open_page(house.ctx, name, project)
    known = str(view.criteria[0].id)
    ratings = tuple({known if key == "1" else key: value for key, value in side.items()} for side in ratings)
    with pytest.raises(Invalid):
        annotate.submit(
            house.ctx, name, project, view.item.assignment_id, 1, _form(ratings=ratings, critiques=critiques)
        )
    assert _stored(house, name) == []


@pytest.mark.parametrize("assignment", [None, "", "x", "1; DROP TABLE users", -1, 1.5, True, 2**40, [], {}])
def test_a_made_up_assignment_is_refused(house, desk, assignment):
    name, project = desk
    with pytest.raises(FeedbackError):
        annotate.submit(house.ctx, name, project, assignment, 1, _form())


def test_a_draft_comes_back_and_never_trains(house, desk):
    name, project = desk
    view = annotate.open_page(house.ctx, name, project)
    criterion = view.criteria[1].id
    form = _form("second", 3, ({str(criterion): 4}, {}), ("half a thought", ""), ("A", "B rewritten"))
    annotate.save_draft(house.ctx, name, str(view.item.assignment_id), 1000, form)
    back = annotate.open_page(house.ctx, name, project).item
    assert [side.completion_id for side in back.sides] == [side.completion_id for side in view.item.sides]
    assert (back.outcome, back.strength) == (Outcome.SECOND, 3)
    assert back.sides[0].ratings == {criterion: 4}
    assert back.sides[0].critiques == (CritiqueForm("half a thought"),)
    assert back.sides[1].refinement == "B rewritten"
    (row,) = _stored(house, name)
    assert row.status is AnnotationStatus.DRAFT


def test_the_newer_of_the_browsers_and_the_stored_draft_wins(house, desk):
    name, project = desk
    assignment = annotate.open_page(house.ctx, name, project).item.assignment_id
    annotate.save_draft(house.ctx, name, assignment, 2000, _form(critiques=("stored", "")))

    def seen(**changes):
        kept = {"assignment": str(assignment), "at": 3000, "form": _form(critiques=("kept", ""))} | changes
        return annotate.open_page(house.ctx, name, project, kept).item.sides[0].critiques[0].text

    assert seen() == "kept"
    assert seen(at=1000) == "stored"
    assert seen(assignment="0") == "stored"
    assert seen(form=["nonsense"]) == "stored"
    assert seen(form=None) == "stored"


def test_a_skipped_item_does_not_come_back(house, desk):
    name, project = desk
    seen = set()
    view = annotate.open_page(house.ctx, name, project)
    while view.item:
        assert view.item.assignment_id not in seen
        seen.add(view.item.assignment_id)
        view = annotate.skip(house.ctx, name, project, view.item.assignment_id)
    assert len(seen) == 3
    assert (view.waiting, view.progress.skipped) == ("all judged", 3)


def test_flagging_needs_a_reason_and_takes_the_item_out_for_all(house, desk):
    name, project = desk
    assignment = annotate.open_page(house.ctx, name, project).item.assignment_id
    for reason in ("", "   ", None, "x" * 1001):
        with pytest.raises(Invalid):
            annotate.flag(house.ctx, name, project, assignment, reason)
    annotate.flag(house.ctx, name, project, assignment, "personal data")
    with house.sessions() as session:
        found = factories.projects.get_project(session, project)
        states = session.scalars(select(Item.status).where(Item.project_id == found.id)).all()
    assert sorted(states) == [ItemStatus.FLAGGED, ItemStatus.OPEN, ItemStatus.OPEN]


def test_an_unknown_project_falls_back_to_one_that_is_there(house, desk):
    view = annotate.open_page(house.ctx, desk[0], "no such project")
    assert view.project in view.projects


def test_a_critique_carries_tags_a_fix_and_its_passage_from_draft_to_store(house, desk):
    name, project = desk
    view = annotate.open_page(house.ctx, name, project)
    written = [
        {"text": "Which day?", "tags": ["no date", "no date"], "fix": " on Tuesday ", "start": 0, "end": 6},
        {"text": "", "tags": ["rude"], "fix": ""},
        {"text": "  ", "tags": [], "fix": "", "start": 2, "end": 4},  # marked, and nothing said of it
    ]
    form = _form(critiques=(written, ""))
    annotate.save_draft(house.ctx, name, view.item.assignment_id, 1000, form)
    back = annotate.open_page(house.ctx, name, project).item.sides[0].critiques
    assert back[0] == CritiqueForm("Which day?", ("no date", "no date"), " on Tuesday ", 0, 6)
    assert back[2] == CritiqueForm("  ", (), "", 2, 4)
    annotate.submit(house.ctx, name, project, view.item.assignment_id, 1, form)
    (row,) = _stored(house, name)
    assert [(one.text, one.tags, one.fix, one.span_start, one.span_end) for one in row.critiques] == [
        ("Which day?", ["no date"], "on Tuesday", 0, 6),
        ("", ["rude"], None, None, None),
    ]


def test_a_mark_outside_the_text_stores_nothing(house, desk):
    name, project = desk
    view = annotate.open_page(house.ctx, name, project)
    beyond = [{"text": "here", "start": 0, "end": len(view.item.sides[0].text) + 1}]
    with pytest.raises(Invalid, match="outside"):
        annotate.submit(house.ctx, name, project, view.item.assignment_id, 1, _form(critiques=(beyond, "")))
    assert _stored(house, name) == []


def test_a_draft_of_an_older_version_is_read(house, desk):
    name, project = desk
    view = annotate.open_page(house.ctx, name, project)
    old = {"at": 1, "outcome": "tie", "strength": None, "ratings": [{}, {"1": 2}], "critiques": ["typed", ""]}
    with house.sessions.begin() as session:
        user = factories.accounts.get_user(session, name)
        annotations.save_draft(session, view.item.assignment_id, user, old | {"refinements": ["", "B"]})
    back = annotate.open_page(house.ctx, name, project).item
    assert back.outcome is Outcome.TIE
    assert back.sides[0].critiques == (CritiqueForm("typed"),)
    assert back.sides[1].refinement == "B"


@pytest.mark.parametrize("kind", [ItemKind.RANKING, ItemKind.PAIR])
def test_several_completions_are_ranked_and_none_is_lost(house, kind):
    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        factories.make_item(session, found, texts=["one", "two", "three", "four"], kind=kind)
    view = annotate.open_page(house.ctx, name, project)
    ids = [side.completion_id for side in view.item.sides]
    assert len(ids) == 4
    four = {"ratings": ({},) * 4, "critiques": ("",) * 4, "refinements": ("",) * 4}
    with pytest.raises(Invalid, match="rank all 4"):
        annotate.submit(
            house.ctx, name, project, view.item.assignment_id, 1, _form(None, None, ranks=[1, 2, 3], **four)
        )
    draft = _form(None, None, ranks=[None, 5, 1, 5], **four)
    annotate.save_draft(house.ctx, name, view.item.assignment_id, 1, draft)
    assert annotate.open_page(house.ctx, name, project).item.ranks == (None, 5, 1, 5)
    form = _form(None, None, ranks=[7, 5, 1, 5], **four)
    annotate.submit(house.ctx, name, project, view.item.assignment_id, 1, form)
    (row,) = _stored(house, name)
    assert {(one.completion_id, one.rank) for one in row.rankings} == set(zip(ids, [3, 2, 1, 2], strict=True))
    assert row.preferences == []


def test_a_project_says_what_its_page_offers(house, desk):
    name, project = desk
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        asked = {"order": "judge_first", "daily_target": 40}
        factories.projects.update_project(session, found, tags=["rude", "too long"], annotation_settings=asked)
    view = annotate.open_page(house.ctx, name, project)
    assert view.tags == ("rude", "too long")
    assert (view.settings.order, view.settings.daily_target) == ("judge_first", 40)
