"""Refinements made by models: which critiques wait, what a run enters, what reviewers say, and when one counts."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import erasure, refinements
from storage.enums import Outcome, RefinementStatus, RunKind
from storage.errors import Conflict, Invalid, NotFound
from storage.models import Annotation, Completion, Prompt, Refinement, Run, utc_now
from storage.refinements import Selected
from tests import factories
from tests.storage.feedback import Desk


@pytest.fixture
def desk(session: Session) -> Desk:
    return Desk(session)


def refine_run(desk: Desk) -> Run:
    run = Run(project_id=desk.project.id, kind=RunKind.REFINE, config={})
    desk.session.add(run)
    desk.session.flush()
    return run


def criticised(desk: Desk, text: str = "Where is it?", says: str = "Rude.", user: str = "ann") -> Annotation:
    """An annotation with a critique of the first of two completions."""
    hashed = select(Prompt).where(Prompt.content_hash == hashlib.sha256(text.encode()).hexdigest())
    prompt = desk.session.scalar(hashed) or desk.prompt(text)
    pair = [desk.completion(prompt, f"{text} No idea."), desk.completion(prompt, f"{text} Wait.")]
    return desk.judge(user, pair, Outcome.SECOND, critique=(pair[0], says, 0, 4))


def selected(annotation: Annotation, text: str = "It comes on Tuesday.", **fields: object) -> Selected:
    critique = annotation.critiques[0]
    return Selected(critique.completion_id, (critique.id,), text, judge_score=0.9, rank=1, **fields)  # type: ignore[arg-type]  # free fields


def waiting(desk: Desk) -> list[int]:
    return [one.critique_id for one in refinements.critiques_to_refine(desk.session, desk.project)]


def test_only_live_critiques_without_a_refinement_wait(desk: Desk) -> None:
    first = criticised(desk)
    again = criticised(desk, user="bob")  # the same words on the same completion
    other = criticised(desk, says="Too short.", user="cleo")
    withdrawn = criticised(desk, "Is it open?")
    withdrawn.withdrawn_at = utc_now()
    prompt = desk.prompt("Can I pay?")
    pair = [desk.completion(prompt, "No."), desk.completion(prompt, "Yes.")]
    desk.judge("ann", pair, Outcome.SECOND, critique=(pair[0], "Curt."), refinement=(pair[0], "Sadly not."))

    found = refinements.critiques_to_refine(desk.session, desk.project)

    assert [one.critique_id for one in found] == [first.critiques[0].id, other.critiques[0].id]
    assert again.critiques[0].id not in [one.critique_id for one in found]
    one = found[0]
    assert (one.prompt[-1]["content"], one.completion) == ("Where is it?", "Where is it? No idea.")
    assert (one.critique, one.span_start, one.span_end, one.tags, one.fix) == ("Rude.", 0, 4, ["tone"], "Kindly.")
    assert len(refinements.critiques_to_refine(desk.session, desk.project, 1)) == 1


def test_entering_a_run_is_idempotent_and_answers_the_critique(desk: Desk) -> None:
    annotation, run = criticised(desk), refine_run(desk)
    rows = [selected(annotation), selected(annotation, "On Tuesday it comes.", version_id=None, seed=7)]

    entered = refinements.add_model_refinements(desk.session, run, rows)
    twice = refinements.add_model_refinements(desk.session, run, rows)

    assert len(entered.refinements) == 2
    assert entered.left_out == {}
    assert twice.refinements == []
    assert twice.left_out == {"answered": 2}
    assert waiting(desk) == []
    made = entered.refinements[1]
    assert made.status is RefinementStatus.UNREVIEWED
    assert [one.text for one in made.critiques] == ["Rude."]
    written = desk.session.get_one(Completion, made.refined_id)
    assert (written.origin.value, written.seed, written.run_id) == ("refinement", 7, run.id)


def test_what_no_longer_makes_sense_is_left_out_with_its_reason(desk: Desk) -> None:
    run = refine_run(desk)
    gone, same, taken = criticised(desk), criticised(desk, "Is it open?"), criticised(desk, "Can I pay?")
    gone.withdrawn_at = utc_now()
    desk.session.flush()
    original = desk.session.get_one(Completion, same.critiques[0].completion_id).text
    refinements.add_model_refinements(desk.session, refine_run(desk), [selected(taken)])

    rows = [selected(gone), selected(same, original + "\n"), selected(taken, "Yes, you can.")]
    entered = refinements.add_model_refinements(desk.session, run, rows)

    assert entered.left_out == {"withdrawn": 1, "same_text": 1, "answered": 1}
    wrong = Selected(taken.critiques[0].completion_id, (same.critiques[0].id,), "No.")
    with pytest.raises(Invalid, match="not all about completion"):
        refinements.add_model_refinements(desk.session, run, [wrong])


def test_a_review_is_one_persons_and_may_be_changed(desk: Desk) -> None:
    annotation, run = criticised(desk), refine_run(desk)
    made = refinements.add_model_refinements(desk.session, run, [selected(annotation)]).refinements[0]
    reviewer, other = desk.user("rita"), desk.user("otto")

    edited = refinements.review(desk.session, made.id, reviewer, RefinementStatus.EDITED, "It comes on Monday.")
    assert edited.status is RefinementStatus.EDITED
    assert desk.session.get_one(Completion, edited.edited_id).text == "It comes on Monday."
    unchanged = refinements.review(desk.session, made.id, reviewer, RefinementStatus.EDITED, "It comes on Tuesday. ")
    assert (unchanged.status, unchanged.edited_id) == (RefinementStatus.ACCEPTED, None)
    with pytest.raises(Conflict, match="somebody else"):
        refinements.review(desk.session, made.id, other, RefinementStatus.REJECTED)
    for text in ("", "Where is it? No idea.", "x" * 20_001):
        with pytest.raises(Invalid):
            refinements.review(desk.session, made.id, reviewer, RefinementStatus.EDITED, text)
    with pytest.raises(NotFound):
        refinements.review(desk.session, 10_000, reviewer, RefinementStatus.ACCEPTED)
    assert refinements.refinement_counts(desk.session, desk.project)["accepted"] == 1


def test_a_rejected_refinement_lets_the_critique_wait_again(desk: Desk) -> None:
    annotation, run = criticised(desk), refine_run(desk)
    made = refinements.add_model_refinements(desk.session, run, [selected(annotation)]).refinements[0]

    refinements.review(desk.session, made.id, desk.user("rita"), RefinementStatus.REJECTED)

    assert waiting(desk) == [annotation.critiques[0].id]
    again = [selected(annotation), selected(annotation, "It is on its way.")]
    entered = refinements.add_model_refinements(desk.session, refine_run(desk), again)
    assert entered.left_out == {"rejected_before": 1}
    assert [one.rank for one in entered.refinements] == [1]


def test_a_revision_that_keeps_the_words_keeps_the_refinement(desk: Desk) -> None:
    annotation, run = criticised(desk), refine_run(desk)
    refinements.add_model_refinements(desk.session, run, [selected(annotation)])
    annotation.superseded_at = utc_now()
    desk.session.flush()

    criticised(desk)
    assert waiting(desk) == []
    changed = criticised(desk, says="Rude!", user="bob")
    assert waiting(desk) == [changed.critiques[0].id]


def test_critiques_of_any_length_and_script_wait_whole(desk: Desk) -> None:
    texts = ["x", "字" * 20_000, "太短了。", ""]
    for number, text in enumerate(texts):
        criticised(desk, f"Question {number}?", says=text)
    assert [one.critique for one in refinements.critiques_to_refine(desk.session, desk.project)] == texts


def test_the_factory_of_a_used_store_holds_a_model_refinement(session: Session) -> None:
    project = factories.fill_store(session)
    assert refinements.refinement_counts(session, project)["unreviewed"] == 1
    assert session.query(Refinement).filter(Refinement.annotation_id.is_(None)).count() == 1


def test_erasing_people_takes_what_models_made_of_their_words(desk: Desk) -> None:
    session, run = desk.session, refine_run(desk)
    theirs, others = criticised(desk), criticised(desk, "Is it open?", user="bob")
    rows = [selected(theirs, "Kindly: on Tuesday."), selected(others, "Yes, until six.")]
    made, kept = refinements.add_model_refinements(session, run, rows).refinements
    refinements.review(session, kept.id, desk.user("ann"), RefinementStatus.EDITED, "Yes, until seven.")
    texts = made.refined_id, kept.edited_id
    erasure.erase_person(session, desk.user("ann"), None)
    session.expire_all()
    assert [one.id for one in session.scalars(select(Refinement))] == [kept.id]
    assert (kept.status, kept.reviewer_id, kept.edited_id) == (RefinementStatus.UNREVIEWED, None, None)
    assert session.scalars(select(Completion).where(Completion.id.in_(texts))).all() == []
    assert session.get_one(Completion, kept.refined_id).text == "Yes, until six."
