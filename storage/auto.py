"""Which recipe to train next: looks at what has been collected, chooses, and says why in one paragraph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from storage.configs import SnapshotSettings
from storage.enums import PairSource, RunKind, RunStatus, SnapshotForm, Split
from storage.errors import NotEnoughData
from storage.models import Annotation, Critique, Project, Run, User
from storage.preferences import PairCounts, stream_pairs
from storage.refinements import critiques_to_refine
from storage.rule_rows import prompts_to_write, rules_to_write
from storage.rule_scope import TRAINED, rule_book
from storage.snapshots import FORMS
from storage.training import queue_generate, queue_refine, queue_training

ENOUGH = 16  # training rows of any form
WORTH_REFINING = 8  # critiques that wait: a run for fewer is not worth its start
MANY_CRITIQUES = 32  # criticised completions from which feedback can be learnt as a condition
RULE_PROMPTS = 200  # in scope, answered with and without the rules
COUNTED = 1000  # critiques looked at: more change nothing
REFINED = (PairSource.REFINEMENT, PairSource.ACCEPTED_REFINEMENT, PairSource.UNREVIEWED_REFINEMENT)


@dataclass(frozen=True)
class Collected:
    """What there is to train on; rows of the training split."""

    pairs: Mapping[PairSource, int] = field(default_factory=dict)
    waiting: int = 0  # critiques that have no refinement and that no run has tried to refine yet
    tried: int = 0  # ... that a run has tried in vain
    refinements: int = 0  # counted only where there are too few pairs, like what follows
    good: int = 0
    bad: int = 0
    criticised: int = 0
    rules: int = 0  # that train
    unwritten: int = 0  # of them those for which nothing was written since they changed


class Choice(NamedTuple):
    """What to run with which settings, and why, sentence by sentence; `kind` None: nothing can be trained yet."""

    kind: RunKind | None
    settings: dict[str, Any]
    reasons: tuple[str, ...]

    @property
    def because(self) -> str:
        """Why, in one paragraph."""
        return " ".join(self.reasons)


def choose(found: Collected) -> Choice:
    """The recipe for what was collected; the first rule that holds.

    1. Critiques that wait are refined first: without a refinement a critique is stored and trains nothing.
    2. Enough pairs, and rules that changed: what teaches these is written first.
    3. Enough pairs: DPO on all of them, joined.
    4. Enough refinements that make no pair: SFT.
    5. Enough completions rated by themselves, good and bad: KTO.
    6. Many critiques that could not be refined (small models refine poorly): a policy conditioned on feedback.
    """
    pairs = sum(found.pairs.values())
    if found.waiting >= WORTH_REFINING or (found.waiting and pairs < ENOUGH):
        return Choice(
            RunKind.REFINE,
            {},
            (
                f"Critiques that wait for a refinement: {found.waiting}.",
                "A critique trains through the completion that was rewritten because of it, so these are refined "
                "first; train again afterwards.",
            ),
        )
    if pairs >= ENOUGH and found.unwritten:
        return Choice(
            RunKind.GENERATE,
            {"for_rules": True, "prompts": RULE_PROMPTS},
            (
                f"Rules in training for which nothing was written since they changed: {found.unwritten}.",
                "Prompts in their scope are answered with and without them, and others by the base model as anchors; "
                "train again afterwards.",
            ),
        )
    if pairs >= ENOUGH:
        return _on_pairs(found, pairs)
    few = f"Training pairs: {pairs}, which is too few for DPO."
    if found.refinements >= ENOUGH:
        return Choice(
            RunKind.SFT,
            {},
            (
                few,
                f"But there are {found.refinements} refinements.",
                "SFT learns to write them, with completions of the base model mixed in to hold it where nobody "
                "criticised it.",
            ),
        )
    if found.good + found.bad >= ENOUGH and found.good and found.bad:
        return Choice(
            RunKind.KTO,
            {},
            (
                few,
                f"But {found.good} completions were rated good and {found.bad} bad by themselves.",
                "KTO learns from such ratings without pairs.",
            ),
        )
    if found.criticised >= MANY_CRITIQUES:
        return Choice(
            RunKind.CONDITIONAL,
            {},
            (
                few,
                f"Critiques that could not be refined: {found.tried}.",
                f"A policy conditioned on feedback learns from the {found.criticised} criticised and rated completions "
                "as they are, and writes under the best feedback.",
            ),
        )
    return Choice(
        None,
        {},
        (
            few,
            f"There are {found.refinements} refinements and {found.good + found.bad} rated completions on training "
            "prompts.",
            f"At least {ENOUGH} of one kind are needed, and prompts of all splits: judge more items.",
        ),
    )


def _on_pairs(found: Collected, pairs: int) -> Choice:
    refined = sum(found.pairs.get(source, 0) for source in REFINED)
    compared = found.pairs.get(PairSource.COMPARISON, 0)
    reasons = [
        f"{pairs} training pairs are enough for DPO, which learns from all of them joined: {compared} comparisons, "
        f"{pairs - compared - refined} rating gaps, {refined} refinements."
    ]
    if found.rules:
        reasons.append(
            f"Rules in training: {found.rules}. What was written under them trains too, with anchors out of their "
            "scope, so that the model follows them there, and only there, without being told."
        )
    if pairs < 500:
        reasons.append("They are few, so beta is raised, and training stops early when held-out pairs get no better.")
    return Choice(RunKind.DPO, {}, tuple(reasons))


def collected(session: Session, project: Project) -> Collected:
    """Look at a project's live feedback; everything but pairs and critiques is counted only while pairs are few."""
    counts = PairCounts()
    for _ in stream_pairs(session, project, SnapshotSettings(), counts):
        pass
    pairs = {source: n for (split, source), n in sorted(counts.used.items()) if split is Split.TRAIN and n}
    waiting = [one.critique_id for one in critiques_to_refine(session, project, COUNTED)]
    since = _newest_tried(session, project)
    found = Collected(pairs, sum(one > since for one in waiting), sum(one <= since for one in waiting))
    if sum(pairs.values()) >= ENOUGH:
        rules, unwritten = _of_rules(session, project)
        return replace(found, rules=rules, unwritten=unwritten)
    labels = [row["label"] for row in _train_rows(session, project, SnapshotForm.UNPAIRED)]
    return Collected(
        pairs,
        found.waiting,
        found.tried,
        refinements=len(_train_rows(session, project, SnapshotForm.PROMPT_COMPLETION)),
        good=sum(labels),
        bad=len(labels) - sum(labels),
        criticised=len(_train_rows(session, project, SnapshotForm.FEEDBACK)),
    )


def for_rules(session: Session, project: Project) -> dict[str, Any] | None:
    """Settings of the generate run that writes what rules are trained on; None when nothing is to be written."""
    return {"for_rules": True, "prompts": RULE_PROMPTS} if _of_rules(session, project)[1] else None


def _of_rules(session: Session, project: Project) -> tuple[int, int]:
    """How many rules train, and for how many of them something is to be written first."""
    book = rule_book(session, project, TRAINED)
    changed = rules_to_write(session, project) if book else []
    # Where no training prompt is in scope, or all are answered, a run would have nothing to write.
    possible = bool(changed and prompts_to_write(session, project, book, 1).in_scope)
    return len(book.rules), len(changed) if possible else 0


def _train_rows(session: Session, project: Project, form: SnapshotForm) -> list[dict[str, Any]]:
    rows = FORMS[form].stream(session, project, SnapshotSettings(), PairCounts())
    return [row.values for row in rows if row.split is Split.TRAIN]


def _newest_tried(session: Session, project: Project) -> int:
    """The newest critique that was there when the last refine run started; 0 before the first."""
    last = session.scalar(
        select(func.max(Run.started_at)).where(
            Run.project_id == project.id, Run.kind == RunKind.REFINE, Run.status == RunStatus.SUCCEEDED
        )
    )
    if last is None:
        return 0
    known = select(func.max(Critique.id)).join(Annotation, Annotation.id == Critique.annotation_id)
    return session.scalar(known.where(Annotation.submitted_at <= last)) or 0


def queue_auto(
    session: Session,
    project: Project,
    values: Mapping[str, Any],
    *,
    home: Path,
    default_base_model: str,
    user: User | None = None,
    choice: Choice | None = None,
) -> tuple[Run, Choice]:
    """Choose, unless somebody did, and queue what was chosen; `values` overrule the settings chosen.

    Raises `NotEnoughData` with the paragraph when nothing can be trained yet, or while a refine run is under way.
    """
    under_way = exists().where(Run.project_id == project.id, Run.status.in_((RunStatus.QUEUED, RunStatus.RUNNING)))
    if session.scalar(select(under_way.where(Run.kind == RunKind.REFINE))):
        raise NotEnoughData("critiques are being refined at this moment; train when that run has ended")
    if session.scalar(select(under_way.where(Run.config["for_rules"].as_boolean()))):
        raise NotEnoughData("what rules are trained on is being written at this moment; train when that run has ended")
    choice = choice or choose(collected(session, project))
    if choice.kind is None:
        raise NotEnoughData(choice.because)
    settings = {**choice.settings, **values}
    if choice.kind is RunKind.REFINE:
        run = queue_refine(session, project, settings, default_base_model=default_base_model, user=user)
    elif choice.kind is RunKind.GENERATE:
        run = queue_generate(session, project, settings, default_base_model=default_base_model, user=user)
    else:
        run = queue_training(
            session, project, choice.kind, settings, home=home, default_base_model=default_base_model, user=user
        )
    return run, choice
