"""Gold items: what is right, how it scores, and that nothing said on them is ever feedback."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import annotations, audit, gold, items, projects
from storage.annotations import CritiqueInput, PreferenceInput, RankInput, RatingInput, Submission
from storage.configs import SnapshotSettings
from storage.enums import AnnotationStatus, ItemKind, ItemStatus, Outcome, Role
from storage.errors import Conflict, Invalid, NotFound
from storage.export import TABLES
from storage.export.annotation_bundles import table as bundles
from storage.gold import GoldComparison, GoldRank, GoldRating, GoldTag, Sort, Standard, judge
from storage.models import Annotation, Item
from storage.preferences import derive_pairs
from storage.quality import quality_report
from tests import factories
from tests.storage import golden


def test_a_score_is_the_mean_over_what_is_asked_for() -> None:
    standard = Standard(
        comparison=GoldComparison(better=1),
        ratings=tuple(GoldRating(completion_id=1, criterion_id=c, value=4, tolerance=1) for c in (7, 8)),
        tags=(GoldTag(completion_id=2, tag="Vague"),),
    )
    said = Submission(
        preference=PreferenceInput(2, 1, Outcome.SECOND, 1),
        ratings=[RatingInput(1, 7, 3), RatingInput(1, 8, 2)],
        critiques=[CritiqueInput(1, "no", tags=["vague"])],
    )
    judged = judge(standard, said)
    assert judged.score == pytest.approx((1 + 0.5 + 0) / 3)
    assert [(part.sort, part.points) for part in judged.parts] == [
        (Sort.COMPARISON, 1), (Sort.RATING, 1), (Sort.RATING, 0), (Sort.TAG, 0)
    ]  # fmt: skip
    assert judge(standard, Submission()).score == 0
    found = judge(standard, Submission(critiques=[CritiqueInput(2, "", tags=["x", "VAGUE"])]))
    assert found.score == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("right", "outcome", "points"),
    [
        (GoldComparison(better=1), Outcome.FIRST, 1),
        (GoldComparison(better=1), Outcome.SECOND, 0),
        (GoldComparison(better=1), Outcome.TIE, 0),
        (GoldComparison(better=1, tie_allowed=True), Outcome.TIE, 1),
        (GoldComparison(better=1, tie_allowed=True), Outcome.BOTH_BAD, 0),
        (GoldComparison(), Outcome.TIE, 1),
        (GoldComparison(both_bad=True), Outcome.BOTH_BAD, 1),
        (GoldComparison(both_bad=True), Outcome.TIE, 0),
    ],
)
def test_a_comparison_is_right_whatever_the_order_shown(right: GoldComparison, outcome: Outcome, points: int) -> None:
    standard = Standard(comparison=right)
    assert judge(standard, Submission(preference=PreferenceInput(1, 2, outcome))).score == points
    swapped = {Outcome.FIRST: Outcome.SECOND, Outcome.SECOND: Outcome.FIRST}.get(outcome, outcome)
    assert judge(standard, Submission(preference=PreferenceInput(2, 1, swapped))).score == points


def test_an_order_scores_by_its_pairs() -> None:
    standard = Standard(ranking=tuple(GoldRank(completion_id=c, rank=r) for c, r in ((1, 1), (2, 2), (3, 2))))

    def score(*ranks: int) -> float:
        return judge(standard, Submission(rankings=[RankInput(c, r) for c, r in enumerate(ranks, start=1)])).score

    assert score(1, 2, 2) == 1
    assert score(1, 2, 3) == pytest.approx(2 / 3)
    assert score(2, 1, 1) == pytest.approx(1 / 3)


def test_an_annotation_becomes_the_standard_and_the_item_leaves_the_queue(session: Session) -> None:
    project = factories.make_project(session)
    olga, ann = factories.make_user(session, role=Role.OPERATOR), factories.make_user(session)
    factories.make_items(session, project, 2)
    lease = factories.make_lease(session, project, olga)
    own = annotations.submit(session, lease.assignment_id, olga, factories.full_submission(lease, project))
    standard = gold.standard_from(gold.said_in(own), tolerance=0, tie_allowed=True, explanation=" Why. ")
    item = gold.mark(session, session.get_one(Item, own.item_id), standard, olga)
    assert own.gold_score == 1
    (line,) = gold.list_gold(session, project)
    assert (line.item.id, line.answers, line.score) == (item.id, 0, None)  # the operator's own is no answer
    assert line.standard == standard
    assert standard.comparison == GoldComparison(better=lease.completions[0][0], tie_allowed=True)
    assert (standard.explanation, len(standard.ratings), standard.tags[0].tag) == ("Why.", 4, "vague")
    assert audit.list_events(session, project)[0].action == "gold.mark"
    assert items.queue_counts(session, project).done == 0, "nobody has done it"
    handed = factories.make_lease(session, project, ann)
    assert handed.item_id != item.id
    annotations.submit(session, handed.assignment_id, ann, factories.prefer_first(handed))
    assert items.lease_next(session, project, ann, rng=random.Random(0)) is None


def test_what_is_said_on_gold_items_is_nowhere_feedback(session: Session) -> None:
    project = factories.make_project(session, overlap=2)
    users = [factories.make_user(session) for _ in range(2)]
    factories.make_items(session, project, 2)
    for user in users:
        for _ in range(2):
            lease = factories.make_lease(session, project, user)
            annotations.submit(session, lease.assignment_id, user, factories.full_submission(lease, project))
    assert annotations.count_usable(session, project) == 4
    marked = session.scalars(select(Item).order_by(Item.id)).first()
    assert marked is not None
    first = session.scalars(select(Annotation).where(Annotation.item_id == marked.id)).first()
    assert first is not None
    gold.mark(session, marked, gold.standard_from(gold.said_in(first)), None)
    session.expire_all()

    assert annotations.count_usable(session, project) == 2
    counts = annotations.annotation_counts(session, project)
    assert (counts["annotations"], counts["preferences"], counts["critiques"]) == (2, 2, 2)
    pairs = derive_pairs(session, project, SnapshotSettings()).pairs
    assert pairs
    assert marked.prompt_id not in {pair.prompt_id for pair in pairs}
    report = quality_report(session, project)
    assert (report.annotations, report.used) == (2, 2)
    assert {question.things for question in report.questions} <= {1, 2}  # one pair, its two completions
    for name, rows_of in TABLES.items():
        if name in ("annotations", "quality"):
            continue
        prompts = {row["prompt_id"] for row in rows_of(session, project).named() if "prompt_id" in row}
        assert marked.prompt_id not in prompts, name
    states = {row["annotation_id"]: row["state"] for row in bundles(session, project).named()}
    assert sorted(states.values()) == ["gold", "gold", "live", "live"]

    gold.unmark(session, marked, None)
    assert annotations.count_usable(session, project) == 4
    assert session.scalars(select(Annotation.gold_score).distinct()).all() == [None]
    assert (marked.status, marked.judged) == (ItemStatus.DONE, 2)
    assert session.scalars(select(Item.id).where(Item.gold.is_not(None))).all() == []
    with pytest.raises(Conflict, match="no gold item"):
        gold.unmark(session, marked, None)


def test_withdrawing_and_revising_on_a_gold_item_leave_it_gold(session: Session) -> None:
    project = factories.make_project(session)
    user = factories.make_user(session)
    factories.make_item(session, project)
    lease = factories.make_lease(session, project, user)
    said = annotations.submit(session, lease.assignment_id, user, factories.full_submission(lease, project))
    item = gold.mark(session, session.get_one(Item, said.item_id), gold.standard_from(gold.said_in(said)), None)
    new = annotations.revise(
        session, said.id, user, Submission(preference=PreferenceInput(*(i for i, _ in lease.completions), Outcome.TIE))
    )
    assert new.gold_score == 0
    annotations.withdraw(session, new.id, user)
    assert (item.status, item.judged) == (ItemStatus.DONE, 0)
    gold.unmark(session, item, None)
    assert item.status is ItemStatus.OPEN


def test_a_standard_that_does_not_fit_is_refused(session: Session) -> None:
    project = factories.make_project(session)
    other = factories.make_project(session)
    user = factories.make_user(session)
    item = factories.make_item(session, project)
    first = item.members[0].completion_id
    criterion = project.criteria[0].id
    for standard, line in (
        (Standard(), "say what is right"),
        (Standard(comparison=GoldComparison(better=first + 99)), "does not have"),
        (Standard(ratings=(GoldRating(completion_id=first, criterion_id=criterion, value=9),)), "off its scale"),
        (Standard(ranking=(GoldRank(completion_id=first, rank=1),)), "every completion"),
    ):
        with pytest.raises(Invalid, match=line):
            gold.mark(session, item, standard, None)
    single = factories.make_item(session, project, kind=ItemKind.SINGLE)
    with pytest.raises(Invalid, match="comparison is of two"):
        gold.mark(session, single, Standard(comparison=GoldComparison()), None)
    with pytest.raises(NotFound, match="no item"):
        gold.find_item(session, other, item.id)
    with pytest.raises(NotFound, match="nobody has judged"):
        gold.annotation_on(session, project, item.id)
    lease = factories.make_lease(session, project, user)
    words = Submission(critiques=[CritiqueInput(lease.completions[0][0], "Only words.")])
    said = annotations.submit(session, lease.assignment_id, user, words)
    assert said.status is AnnotationStatus.SUBMITTED
    with pytest.raises(Invalid, match="only criticises in words"):
        gold.standard_from(gold.said_in(gold.find_annotation(session, project, said.id)))
    with pytest.raises(NotFound, match="no annotation"):
        gold.find_annotation(session, other, said.id)


def test_ratings_of_a_criterion_that_is_gone_are_asked_for_no_more(session: Session) -> None:
    project = factories.make_project(session)
    (item,) = golden.make_gold(session, project)
    kept = [projects.CriterionSpec("new")]
    projects.update_project(session, project, criteria=kept)
    standard = gold.standard_of(session, item)
    assert standard is not None
    assert (standard.ratings, standard.comparison is not None) == ((), True)
