"""What annotators say: drafts, checks, the one submit, withdrawal, imports, progress, durability."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from storage import annotations, items
from storage.annotations import CritiqueInput, PreferenceInput, RatingInput, RefinementInput, Submission
from storage.enums import AnnotationStatus, CompletionOrigin, ItemKind, ItemStatus, Outcome
from storage.errors import Conflict, Invalid, NotFound
from storage.items import Lease
from storage.models import Annotation, AuditEvent, Completion, Critique, Item, Project, Rating, User, utc_now
from storage.projects import CriterionSpec
from tests import factories


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session, criteria=[CriterionSpec("quality"), CriterionSpec("tone", low=-1, high=1)])


@pytest.fixture
def ann(session: Session) -> User:
    return factories.make_user(session, "ann")


@pytest.fixture
def lease(session: Session, project: Project, ann: User) -> Lease:
    factories.make_item(session, project, texts=["Soon.", "It left on Monday."])
    return factories.make_lease(session, project, ann)


def test_a_submit_stores_everything_that_was_said(session: Session, project: Project, ann: User, lease: Lease) -> None:
    quality, tone = project.criteria
    (first, _), (second, second_text) = lease.completions
    annotations.save_draft(session, lease.assignment_id, ann, {"critique": "Nam"})
    annotation = annotations.submit(
        session,
        lease.assignment_id,
        ann,
        Submission(
            ratings=[RatingInput(first, quality.id, 5), RatingInput(second, tone.id, -1)],
            preference=PreferenceInput(first, second, Outcome.FIRST, 3),
            critiques=[CritiqueInput(second, " Name the day. ", 0, len(second_text), ["date", " "])],
            refinements=[RefinementInput(second, "It arrives on Tuesday.")],
            seconds_spent=12.5,
        ),
    )
    session.expire_all()
    assert (annotation.status, annotation.draft) == (AnnotationStatus.SUBMITTED, None)
    assert (annotation.seconds_spent, annotation.assignment_id) == (12.5, lease.assignment_id)
    assert {(r.completion_id, r.criterion_id, r.value) for r in annotation.ratings} == {
        (first, quality.id, 5),
        (second, tone.id, -1),
    }
    preference = annotation.preferences[0]
    assert (preference.first_id, preference.second_id, preference.outcome, preference.strength) == (
        first, second, Outcome.FIRST, 3,
    )  # fmt: skip
    critique = annotation.critiques[0]
    assert (critique.text, critique.span_start, critique.span_end, critique.tags) == (
        "Name the day.", 0, len(second_text), ["date"],
    )  # fmt: skip
    refined = session.get_one(Completion, annotation.refinements[0].refined_id)
    assert (refined.text, refined.origin) == ("It arrives on Tuesday.", CompletionOrigin.REFINEMENT)
    assert annotation.refinements[0].completion_id == second
    item = session.get_one(Item, lease.item_id)
    assert (item.status, item.judged) == (ItemStatus.DONE, 1)
    assert refined.prompt_id == item.prompt_id


def test_there_is_no_second_submit(session: Session, ann: User, lease: Lease) -> None:
    annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease))
    for again in (
        lambda: annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease)),
        lambda: annotations.save_draft(session, lease.assignment_id, ann, {"late": "autosave"}),
        lambda: items.skip(session, lease.assignment_id, ann),
    ):
        with pytest.raises(Conflict, match="already"):
            again()
    assert session.scalar(select(func.count()).select_from(Annotation)) == 1


Make = Callable[[int, int, int], Submission]
BAD: list[tuple[str, Make]] = [
    ("nothing was judged", lambda a, b, c: Submission()),
    ("nothing was judged", lambda a, b, c: Submission(critiques=[CritiqueInput(a, "  ")], seconds_spent=3)),
    ("another item", lambda a, b, c: Submission(ratings=[RatingInput(999, c, 3)])),
    ("another item", lambda a, b, c: Submission(preference=PreferenceInput(a, 999, Outcome.TIE))),
    ("another item", lambda a, b, c: Submission(critiques=[CritiqueInput(999, "x")])),
    ("another item", lambda a, b, c: Submission(refinements=[RefinementInput(999, "x")])),
    ("criterion", lambda a, b, c: Submission(ratings=[RatingInput(a, 999, 3)])),
    ("from 1 to 5", lambda a, b, c: Submission(ratings=[RatingInput(a, c, 6)])),
    ("from 1 to 5", lambda a, b, c: Submission(ratings=[RatingInput(a, c, 0)])),
    ("from 1 to 5", lambda a, b, c: Submission(ratings=[RatingInput(a, c, 2.5)])),  # type: ignore[arg-type]  # the mistake
    ("two ratings", lambda a, b, c: Submission(ratings=[RatingInput(a, c, 2), RatingInput(a, c, 3)])),
    ("two different", lambda a, b, c: Submission(preference=PreferenceInput(a, a, Outcome.FIRST))),
    ("strength", lambda a, b, c: Submission(preference=PreferenceInput(a, b, Outcome.FIRST, 4))),
    ("both a start and an end", lambda a, b, c: Submission(critiques=[CritiqueInput(a, "x", 0)])),
    ("outside", lambda a, b, c: Submission(critiques=[CritiqueInput(a, "x", 2, 2)])),
    ("outside", lambda a, b, c: Submission(critiques=[CritiqueInput(a, "x", 0, 1000)])),
    ("outside", lambda a, b, c: Submission(critiques=[CritiqueInput(a, "x", -1, 3)])),
    ("20,001 characters", lambda a, b, c: Submission(critiques=[CritiqueInput(a, "x" * 20_001)])),
    ("20,001 characters", lambda a, b, c: Submission(refinements=[RefinementInput(a, "x" * 20_001)])),
    ("two refinements", lambda a, b, c: Submission(refinements=[RefinementInput(a, "x"), RefinementInput(a, "y")])),
    ("seconds", lambda a, b, c: Submission(critiques=[CritiqueInput(a, "x")], seconds_spent=-1)),
    ("seconds", lambda a, b, c: Submission(critiques=[CritiqueInput(a, "x")], seconds_spent=float("nan"))),
]


@pytest.mark.parametrize(("message", "make"), BAD)
def test_what_does_not_fit_the_item_is_refused_whole(
    session: Session, project: Project, ann: User, lease: Lease, message: str, make: Make
) -> None:
    (first, _), (second, _) = lease.completions
    annotations.save_draft(session, lease.assignment_id, ann, {"kept": True})
    with pytest.raises(Invalid, match=message):
        annotations.submit(session, lease.assignment_id, ann, make(first, second, project.criteria[0].id))
    assert items.get_lease(session, lease.assignment_id, ann).draft == {"kept": True}
    assert session.scalars(select(Rating)).all() == []


def test_ties_have_no_strength_and_unchanged_refinements_are_none(session: Session, ann: User, lease: Lease) -> None:
    (first, first_text), (second, _) = lease.completions
    annotation = annotations.submit(
        session,
        lease.assignment_id,
        ann,
        Submission(
            preference=PreferenceInput(first, second, Outcome.TIE, 2),
            critiques=[CritiqueInput(first, " "), CritiqueInput(first, "", tags=["tone"])],
            refinements=[RefinementInput(first, f" {first_text}\n"), RefinementInput(second, "  ")],
        ),
    )
    session.expire_all()
    assert annotation.preferences[0].strength is None
    assert [(c.text, c.tags) for c in annotation.critiques] == [("", ["tone"])]
    assert annotation.refinements == []


def test_a_single_completion_is_judged_without_a_comparison(session: Session, project: Project, ann: User) -> None:
    factories.make_item(session, project, kind=ItemKind.SINGLE)
    lease = factories.make_lease(session, project, ann)
    assert (lease.kind, len(lease.completions)) == (ItemKind.SINGLE, 1)
    rating = RatingInput(lease.completions[0][0], project.criteria[0].id, 2)
    annotations.submit(session, lease.assignment_id, ann, Submission(ratings=[rating]))
    assert session.get_one(Item, lease.item_id).status is ItemStatus.DONE


def test_a_draft_keeps_the_lease_and_survives_until_the_submit(session: Session, ann: User, lease: Lease) -> None:
    now = utc_now() + timedelta(minutes=15)
    annotations.save_draft(session, lease.assignment_id, ann, {"a": "one"}, now=now)
    annotations.save_draft(session, lease.assignment_id, ann, {"a": "two"}, now=now)
    later = now + timedelta(minutes=19)  # long after the first expiry
    found = items.get_lease(session, lease.assignment_id, ann, now=later)
    assert (found.draft, found.expires_at > later) == ({"a": "two"}, True)
    assert session.scalar(select(func.count()).select_from(Annotation)) == 1
    with pytest.raises(Invalid, match="too long"):
        annotations.save_draft(session, lease.assignment_id, ann, {"a": "x" * 500_000}, now=later)


def test_drafts_never_count(session: Session, project: Project, ann: User, lease: Lease) -> None:
    annotations.save_draft(session, lease.assignment_id, ann, {"a": 1})
    assert annotations.count_usable(session, project) == 0
    assert session.get_one(Item, lease.item_id).judged == 0


def test_a_withdrawn_annotation_stays_readable_and_frees_the_item(
    session: Session, project: Project, ann: User, lease: Lease
) -> None:
    annotation = annotations.submit(session, lease.assignment_id, ann, factories.full_submission(lease, project))
    annotations.withdraw(session, annotation.id, ann)
    session.expire_all()
    assert annotation.withdrawn_at is not None
    assert len(annotation.critiques) == 1
    item = session.get_one(Item, lease.item_id)
    assert (item.status, item.judged) == (ItemStatus.OPEN, 0)
    assert annotations.count_usable(session, project) == 0
    counts = annotations.annotation_counts(session, project)
    assert (counts["withdrawn"], counts["annotations"], counts["critiques"]) == (1, 0, 0)
    assert annotations.my_progress(session, project, ann).submitted_total == 0
    assert items.lease_next(session, project, ann, rng=factories.random.Random(0)) is None, "not a second time"
    assert factories.make_lease(session, project, factories.make_user(session)).item_id == item.id
    assert [e.action for e in session.scalars(select(AuditEvent))][-1] == "annotation.withdraw"
    with pytest.raises(Conflict, match="does not count any more"):
        annotations.withdraw(session, annotation.id, ann)
    with pytest.raises(NotFound):
        annotations.withdraw(session, 999, ann)


def test_an_import_counts_once(session: Session, project: Project, ann: User) -> None:
    item = factories.make_item(session, project, texts=["a", "b"])
    first, second = (member.completion_id for member in item.members)
    said = Submission(preference=PreferenceInput(first, second, Outcome.SECOND))
    made = annotations.record_imported(session, item, ann, said, "key-1")
    assert made is not None
    assert (made.source_key, made.assignment_id, made.item.status) == ("key-1", None, ItemStatus.DONE)
    assert annotations.record_imported(session, item, ann, said, "key-1") is None
    assert annotations.record_imported(session, item, ann, said, "key-2") is None, "the person's view is known"
    with pytest.raises(Invalid, match="another item"):
        annotations.record_imported(
            session, item, factories.make_user(session), Submission(critiques=[CritiqueInput(0, "x")]), "key-3"
        )
    assert session.get_one(Item, item.id).judged == 1


def test_a_person_does_not_judge_what_they_judged_in_an_import(session: Session, ann: User) -> None:
    project = factories.make_project(session, overlap=3)
    item = factories.make_item(session, project)
    first, second = (member.completion_id for member in item.members)
    said = Submission(preference=PreferenceInput(first, second, Outcome.TIE))
    annotations.record_imported(session, item, ann, said, "key")
    assert items.lease_next(session, project, ann, rng=factories.random.Random(0)) is None
    assert factories.make_lease(session, project, factories.make_user(session)).item_id == item.id


def test_progress_begins_anew_at_midnight_utc(session: Session, project: Project, ann: User) -> None:
    factories.make_items(session, project, 4)
    midnight = datetime(2026, 5, 2, tzinfo=UTC)
    for moment in (midnight - timedelta(seconds=1), midnight, midnight + timedelta(hours=9)):
        factories.make_annotation(session, project, ann, now=moment)
    items.skip(session, factories.make_lease(session, project, ann).assignment_id, ann)
    noon = midnight + timedelta(hours=12)
    assert annotations.my_progress(session, project, ann, now=noon) == (2, 3, 1)
    assert annotations.my_progress(session, project, ann, now=noon + timedelta(days=1)) == (0, 3, 1)
    assert annotations.my_progress(session, factories.make_project(session), ann) == (0, 0, 0)
    assert annotations.count_usable(session, project) == 3
    assert annotations.count_usable(session, project, since=midnight) == 1


def test_counts_are_of_the_project_alone(session: Session, project: Project, ann: User, lease: Lease) -> None:
    annotations.submit(session, lease.assignment_id, ann, factories.full_submission(lease, project))
    other = factories.make_project(session)
    factories.make_item(session, other)
    factories.make_annotation(session, other, ann)
    assert annotations.annotation_counts(session, project) == {
        "prompts": 1, "completions": 3, "items": 1, "annotations": 1, "withdrawn": 0, "annotators": 1,
        "ratings": 2, "preferences": 1, "critiques": 1, "refinements": 1,
    }  # fmt: skip


_CHILD = """
import random, sys, time
from storage.annotations import CritiqueInput, Submission, submit
from storage.engine import make_engine, make_sessions
from storage.items import lease_next
from storage.models import Project, User
sessions = make_sessions(make_engine(sys.argv[1]))
with sessions.begin() as session:
    user, project = session.get_one(User, 1), session.get_one(Project, 1)
    lease = lease_next(session, project, user, rng=random.Random(0))
    kept = CritiqueInput(lease.completions[0][0], "durable")
    submit(session, lease.assignment_id, user, Submission(critiques=[kept]))
print("acknowledged", flush=True)
with sessions.begin() as session:
    lease = lease_next(session, project, user, rng=random.Random(0))
    lost = CritiqueInput(lease.completions[0][0], "lost")
    submit(session, lease.assignment_id, user, Submission(critiques=[lost]))
    session.flush()
    print("not committed", flush=True)
    time.sleep(60)
"""


def test_an_acknowledged_submit_survives_kill_9(sessions: sessionmaker[Session], database_url: str) -> None:
    with sessions.begin() as session:
        project, user = factories.make_project(session), factories.make_user(session)
        factories.make_items(session, project, 2)
        assert (project.id, user.id) == (1, 1)
    child = subprocess.Popen([sys.executable, "-c", _CHILD, database_url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "acknowledged\n"
    assert child.stdout.readline() == "not committed\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait(timeout=30)
    child.stdout.close()
    with sessions.begin() as session:  # a writer: what the dead process held is free again
        assert [row.text for row in session.scalars(select(Critique))] == ["durable"]
        assert session.scalars(select(Item.judged).order_by(Item.id)).all() == [1, 0]
        assert factories.make_lease(session, project, user).item_id == 2
