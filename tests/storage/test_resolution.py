"""Was it fixed: who is asked about which critiques after a promotion, what they say, and the rates that come of it."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import annotations, questions, refinements, registry, resolution
from storage.annotations import CritiqueInput, Submission
from storage.configs import GenerateConfig, parse
from storage.enums import (
    AssignmentStatus,
    ItemKind,
    RefinementStatus,
    ResolutionVerdict,
    RunKind,
    RunStatus,
    Split,
)
from storage.errors import Conflict, Invalid, NotFound
from storage.items import lease_next
from storage.models import Annotation, Assignment, Completion, Critique, Item, ModelVersion, Resolution, Run, User
from storage.projects import update_project
from storage.refinements import Selected
from tests import factories

RNG = random.Random(0)


class Loop:
    """A project whose base model was criticised by two people, on train and on held-out prompts."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.project = factories.make_project(session)
        self.base = registry.base_version(session, self.project, "starter")
        self.ann, self.bob = factories.make_user(session), factories.make_user(session)
        self.marks = [
            self.criticise(self.ann, Split.TRAIN, ["tone"]),
            self.criticise(self.bob, Split.TRAIN, ["tone", "length"]),
            self.criticise(self.bob, Split.TEST, ["length"]),
            self.criticise(self.bob, Split.TEST, ["facts"]),
        ]

    def criticise(self, user: User, split: Split, tags: list[str]) -> Annotation:
        item = factories.make_item(self.session, self.project, split=split, version=self.base)
        lease = factories.make_lease(self.session, self.project, user)
        assert lease.item_id == item.id
        said = CritiqueInput(lease.completions[0][0], "Not like this.", 0, 3, tags, "Kindly.")
        return annotations.submit(self.session, lease.assignment_id, user, Submission(critiques=[said]))

    def promote(self) -> ModelVersion:
        version = factories.make_version(self.session, self.project)
        registry.promote(self.session, version, None, "better")
        return version

    def answer_all(self, version: ModelVersion, run: Run) -> int:
        """What the worker enters: one completion of the new champion for each prompt."""
        ids = parse(GenerateConfig, run.config).critique_ids
        answers = {
            prompt.id: factories.make_completion(
                self.session, prompt, f"Kindly, {prompt.id}.", model_version_id=version.id, run_id=run.id
            )
            for prompt in resolution.prompts_of(self.session, ids)
        }
        return resolution.enter_answers(self.session, run, version, answers)


@pytest.fixture
def loop(session: Session) -> Loop:
    return Loop(session)


def queued(loop: Loop) -> Run:
    run = resolution.queue_answers(loop.session, loop.project)
    assert run is not None
    return run


def test_a_promotion_is_asked_about_once(loop: Loop) -> None:
    assert not resolution.due(loop.session, loop.project), "nothing was promoted"
    loop.promote()
    assert resolution.due(loop.session, loop.project)
    run = queued(loop)
    config = parse(GenerateConfig, run.config)
    assert (run.kind, config.completions_per_prompt, config.prompts) == (RunKind.GENERATE, 1, 4)
    assert sorted(config.critique_ids) == [mark.critiques[0].id for mark in loop.marks]
    assert not resolution.due(loop.session, loop.project)
    assert resolution.queue_answers(loop.session, loop.project) is None
    loop.promote()
    assert resolution.due(loop.session, loop.project)
    update_project(loop.session, loop.project, annotation_settings={"resolution_share": 0})
    assert not resolution.due(loop.session, loop.project)


def test_taken_back_critiques_and_those_of_the_new_version_are_not_asked_about(loop: Loop) -> None:
    annotations.withdraw(loop.session, loop.marks[0].id, loop.ann)
    version = loop.promote()
    item = factories.make_item(loop.session, loop.project, version=version)
    lease = factories.make_lease(loop.session, loop.project, loop.ann)
    while lease.item_id != item.id:  # the withdrawn one's item is open again
        annotations.submit(loop.session, lease.assignment_id, loop.ann, factories.prefer_first(lease))
        lease = factories.make_lease(loop.session, loop.project, loop.ann)
    said = CritiqueInput(lease.completions[0][0], "Nor like this.")
    annotations.submit(loop.session, lease.assignment_id, loop.ann, Submission(critiques=[said]))
    drawn = resolution.draw(loop.session, loop.project, version)
    assert sorted(one.critique_id for one in drawn) == [mark.critiques[0].id for mark in loop.marks[1:]]
    assert drawn == resolution.draw(loop.session, loop.project, version)
    # A held-out critique with a complaint that is trained on comes before one without.
    held_out = [one.tags for one in drawn if one.split is Split.TEST]
    assert held_out == [["length"], ["facts"]]


def test_authors_answer_and_rates_come_with_intervals_and_by_tag(loop: Loop) -> None:
    version = loop.promote()
    run = queued(loop)
    assert loop.answer_all(version, run) == 4
    assert loop.answer_all(version, run) == 0
    shown = questions.next_question(loop.session, loop.project, loop.ann, RNG)
    assert shown is not None
    assert (shown.kind, shown.version, shown.held_out) == (ItemKind.RESOLUTION, version.name, False)
    assert shown.critiques[0].text == "Not like this."
    assert shown.old != shown.new

    with pytest.raises(NotFound, match="not put to you"):
        questions.answer_resolution(loop.session, shown.item_id, loop.bob, ResolutionVerdict.FIXED)
    verdicts = iter([ResolutionVerdict.FIXED, ResolutionVerdict.WORSE, ResolutionVerdict.PARTLY])
    for verdict in verdicts:
        asked = questions.next_question(loop.session, loop.project, loop.bob, RNG)
        assert asked is not None
        questions.answer_resolution(loop.session, asked.item_id, loop.bob, verdict)
    questions.answer_resolution(loop.session, shown.item_id, loop.ann, ResolutionVerdict.FIXED)

    rates = resolution.resolution_rates(loop.session, loop.project)[version.id]
    assert rates.verdicts == {"fixed": 2, "worse": 1, "partly": 1}
    told = rates.as_dict()
    assert (told["fixed"]["fixed"], told["fixed"]["of"], told["fixed"]["rate"]) == (2, 4, 0.5)
    assert told["fixed"]["low"] == pytest.approx(0.150, abs=0.001)  # Wilson, by hand
    assert told["fixed"]["high"] == pytest.approx(0.850, abs=0.001)
    assert (told["held_out"]["fixed"], told["held_out"]["of"]) == (0, 2)
    by_tag = {tag: (share["fixed"], share["of"]) for tag, share in told["by_tag"].items()}
    assert by_tag == {"length": (1, 2), "tone": (2, 2), "facts": (0, 1)}
    annotations.withdraw(loop.session, loop.marks[0].id, loop.ann)
    assert sum(resolution.resolution_rates(loop.session, loop.project)[version.id].verdicts.values()) == 3


def test_the_same_text_again_is_no_fix_and_no_question(loop: Loop) -> None:
    version = loop.promote()
    run = queued(loop)
    answers = {}
    for mark in loop.marks:
        old = loop.session.get_one(Completion, mark.critiques[0].completion_id)
        answers[old.prompt_id] = old
    assert resolution.enter_answers(loop.session, run, version, answers) == 0
    assert questions.next_question(loop.session, loop.project, loop.ann, RNG) is None
    rates = resolution.resolution_rates(loop.session, loop.project)[version.id]
    assert (rates.verdicts, rates.waiting) == ({"not": 4}, 0)


def test_a_question_is_no_item_of_the_queue_and_can_be_passed_over(loop: Loop) -> None:
    version = loop.promote()
    loop.answer_all(version, queued(loop))
    assert lease_next(loop.session, loop.project, loop.ann, rng=RNG) is None
    shown = questions.next_question(loop.session, loop.project, loop.ann, RNG)
    assert shown is not None
    before = annotations.my_progress(loop.session, loop.project, loop.ann)  # annotations alone are work that counts
    questions.pass_over(loop.session, shown.item_id, loop.ann)
    assert questions.next_question(loop.session, loop.project, loop.ann, RNG) is None
    assert annotations.my_progress(loop.session, loop.project, loop.ann) == before
    annotations.withdraw(loop.session, loop.marks[1].id, loop.bob)
    left = questions.next_question(loop.session, loop.project, loop.bob, RNG)
    assert left is not None
    with pytest.raises(Invalid, match="fixed, partly, not, worse"):
        questions.answer_resolution(loop.session, left.item_id, loop.bob, "better")  # type: ignore[arg-type]  # on purpose
    own = loop.session.scalars(select(Item.id).where(Item.kind == ItemKind.RESOLUTION, Item.owner_id == loop.bob.id))
    gone = next(one for one in own if _critique_of(loop, one) == loop.marks[1].critiques[0].id)
    with pytest.raises(Conflict, match="taken back"):
        questions.answer_resolution(loop.session, gone, loop.bob, ResolutionVerdict.FIXED)


def _critique_of(loop: Loop, item_id: int) -> int:
    return loop.session.scalars(select(Resolution.critique_id).where(Resolution.item_id == item_id)).one()


def refined(loop: Loop) -> None:
    run = Run(project_id=loop.project.id, kind=RunKind.REFINE, status=RunStatus.SUCCEEDED, config={})
    loop.session.add(run)
    loop.session.flush()
    critique = loop.marks[0].critiques[0]
    row = Selected(critique.completion_id, (critique.id,), "Kindly: on Tuesday.", loop.base.id)
    refinements.add_model_refinements(loop.session, run, [row])


def test_people_review_refinements_where_the_project_says_so(loop: Loop) -> None:
    refined(loop)
    assert questions.next_question(loop.session, loop.project, loop.bob, RNG) is None
    assert not questions.draw(loop.session, loop.project, loop.bob, RNG)
    update_project(loop.session, loop.project, annotation_settings={"review_share": 1.0, "resolution_share": 0.0})
    assert questions.draw(loop.session, loop.project, loop.bob, RNG)
    shown = questions.next_question(loop.session, loop.project, loop.bob, RNG)
    assert shown is not None
    assert (shown.kind, shown.new, shown.version) == (ItemKind.REVIEW, "Kindly: on Tuesday.", "policy-v0")
    assert [one.text for one in shown.critiques] == ["Not like this."]
    same = questions.next_question(loop.session, loop.project, loop.ann, RNG)
    assert same == shown
    questions.pass_over(loop.session, shown.item_id, loop.ann)
    assert questions.next_question(loop.session, loop.project, loop.ann, RNG) is None

    row = questions.answer_review(loop.session, shown.item_id, loop.bob, RefinementStatus.EDITED, "On Tuesday.")

    assert (row.status, row.reviewer_id) == (RefinementStatus.EDITED, loop.bob.id)
    assert questions.next_question(loop.session, loop.project, loop.bob, RNG) is None
    with pytest.raises(Conflict, match="somebody else"):
        questions.answer_review(loop.session, shown.item_id, loop.ann, RefinementStatus.REJECTED)
    done = loop.session.scalars(select(Assignment).where(Assignment.item_id == shown.item_id)).all()
    assert [one.status for one in done] == [AssignmentStatus.ANSWERED, AssignmentStatus.ANSWERED]


def test_the_critique_of_a_disabled_person_is_not_asked_about(loop: Loop) -> None:
    version = loop.promote()
    factories.accounts.disable_user(loop.session, loop.bob)
    drawn = resolution.draw(loop.session, loop.project, version)
    authors = {loop.session.get_one(Critique, one.critique_id).annotation.user_id for one in drawn}
    assert authors == {loop.ann.id}
