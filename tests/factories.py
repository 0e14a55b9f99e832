"""Rows for tests: every function fills what the test does not care about. Made by the store's own functions where one
exists, so that a test never stands on rows that the application could not have written."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import accounts, annotations, audit, cycle, items, projects, prompts, registry, rules, runs
from storage.configs import GenerateConfig, SnapshotSettings
from storage.critique_configs import RECIPES
from storage.enums import (
    Admission,
    CompletionOrigin,
    GateVerdict,
    ItemKind,
    LinkPurpose,
    ModelKind,
    Outcome,
    PairSource,
    RefinementStatus,
    Role,
    RunKind,
    RunStatus,
    Split,
)
from storage.models import (
    Alert,
    Annotation,
    ApiRequest,
    ApiToken,
    AuditEvent,
    BlindTest,
    BlindTestItem,
    Completion,
    CompletionRule,
    CompletionScore,
    Conversation,
    Evaluation,
    GateResult,
    Identity,
    Item,
    ModelVersion,
    Project,
    ProjectMember,
    Prompt,
    Ranking,
    Refinement,
    RefinementCritique,
    Resolution,
    Run,
    Snapshot,
    SnapshotRow,
    SnapshotRowAnnotation,
    SnapshotRowCritique,
    SnapshotRowRefinement,
    SnapshotRowRule,
    Standing,
    User,
    Webhook,
    WebhookDelivery,
    utc_now,
)

_numbers = itertools.count(1)


def make_user(session: Session, name: str | None = None, role: Role = Role.ANNOTATOR, **fields: Any) -> User:
    return accounts.create_user(session, name or f"user-{next(_numbers)}", role, **fields)


def make_link(session: Session, user: User, purpose: LinkPurpose = LinkPurpose.LOGIN) -> str:
    return accounts.issue_link(session, user, purpose, timedelta(days=1))


def make_login(session: Session, user: User) -> str:
    return accounts.open_session(session, user, timedelta(days=1))


def make_project(session: Session, name: str | None = None, **fields: Any) -> Project:
    return projects.create_project(session, name or f"project-{next(_numbers)}", **fields)


def make_prompt(session: Session, project: Project, text: str | None = None, split: Split | None = None) -> Prompt:
    """A prompt; its text is varied until it falls into `split` (None: TRAIN, but a text that is given stays)."""
    if text is None:
        split = split or Split.TRAIN
    for _ in range(1000):
        content = text if text is not None else f"Question {next(_numbers)}?"
        messages = [{"role": "user", "content": content}]
        if split is None or prompts.split_of(prompts.content_hash(messages)) is split:
            return prompts.add_prompt(session, project, messages, "test").row
        text = None
    raise AssertionError("no text of the wanted split")


def make_completion(session: Session, prompt: Prompt, text: str | None = None, **fields: Any) -> Completion:
    origin = fields.pop("origin", CompletionOrigin.MODEL)
    return prompts.add_completion(session, prompt, text or f"Answer {next(_numbers)}.", origin, **fields).row


def make_item(
    session: Session,
    project: Project,
    *,
    prompt: Prompt | None = None,
    texts: Sequence[str] | None = None,
    kind: ItemKind = ItemKind.PAIR,
    split: Split | None = None,
    version: ModelVersion | None = None,
) -> Item:
    """An open item on a new prompt, with two completions (one for a single) of `version`."""
    prompt = prompt or make_prompt(session, project, split=split)
    wanted = texts or [f"Answer {next(_numbers)}." for _ in range(1 if kind is ItemKind.SINGLE else 2)]
    written = [
        make_completion(session, prompt, text, model_version_id=version.id if version else None) for text in wanted
    ]
    return items.add_item(session, prompt, written, kind).row


def make_items(session: Session, project: Project, count: int, **fields: Any) -> list[Item]:
    return [make_item(session, project, **fields) for _ in range(count)]


def make_lease(session: Session, project: Project, user: User, **fields: Any) -> items.Lease:
    fields.setdefault("rng", random.Random(0))
    lease = items.lease_next(session, project, user, **fields)
    assert lease is not None, "the queue is empty"
    return lease


def prefer_first(lease: items.Lease, strength: int = 2) -> annotations.Submission:
    """The smallest useful submission: the completion shown first is better."""
    (first, _), (second, _) = lease.completions[:2]
    return annotations.Submission(
        preference=annotations.PreferenceInput(first, second, Outcome.FIRST, strength), seconds_spent=1.5
    )


def full_submission(lease: items.Lease, project: Project) -> annotations.Submission:
    """A submission with one of everything: ratings, a preference, a critique on a span and a refinement."""
    (first, first_text), (second, _) = lease.completions[:2]
    return annotations.Submission(
        ratings=[annotations.RatingInput(first, criterion.id, criterion.high) for criterion in project.criteria],
        preference=annotations.PreferenceInput(first, second, Outcome.FIRST, 3),
        critiques=[annotations.CritiqueInput(second, "No date is given.", 0, min(3, len(first_text)), ["vague"])],
        refinements=[annotations.RefinementInput(second, "It arrives on Tuesday.")],
        seconds_spent=12.0,
    )


def make_annotation(
    session: Session, project: Project, user: User, submission: annotations.Submission | None = None, **fields: Any
) -> Annotation:
    """The next item of the queue, judged by `user`."""
    lease = make_lease(session, project, user, **fields)
    return annotations.submit(session, lease.assignment_id, user, submission or prefer_first(lease), **fields)


def make_run(
    session: Session, project: Project, kind: RunKind = RunKind.DPO, *, worker: str | None = None, **fields: Any
) -> Run:
    """A queued run; with `worker`, claimed by it."""
    config = GenerateConfig() if kind is RunKind.GENERATE else RECIPES[kind].config()
    run = runs.queue_run(session, project, kind, asked={}, config=config, **fields)
    if worker is not None:
        claimed = runs.claim_run(session, worker, [kind])
        assert claimed is not None
        assert claimed.id == run.id, "an older run was in the queue"
    return run


def make_version(
    session: Session, project: Project, kind: ModelKind = ModelKind.POLICY, snapshot: Snapshot | None = None
) -> ModelVersion:
    """A candidate with the finished run that made it."""
    parent = registry.base_version(session, project, "starter") if kind is ModelKind.POLICY else None
    run_kind = RunKind.DPO if kind is ModelKind.POLICY else RunKind.REWARD
    run = make_run(session, project, run_kind, worker="factory", snapshot=snapshot, parent_version=parent)
    runs.finish_run(session, run.id, "factory", RunStatus.SUCCEEDED, result={})
    number = registry.next_number(session, project, kind)
    folder = f"artifacts/versions/{project.id}/{kind.value}-v{number}"
    return registry.register_version(session, run, kind, folder, "0" * 64, {"accuracy": 0.7}, "starter")


def make_snapshot(session: Session, project: Project, annotations: Sequence[Annotation] = ()) -> Snapshot:
    """The rows of a snapshot without its files: one pair for each annotation, whose item must have two completions."""
    snapshot = Snapshot(
        project_id=project.id,
        content_hash=f"{next(_numbers):064x}",
        folder="artifacts/snapshots/none",
        settings=SnapshotSettings().model_dump(mode="json"),
        report={},
    )
    session.add(snapshot)
    session.flush()
    for position, annotation in enumerate(annotations):
        item = session.get_one(Item, annotation.item_id)
        chosen, rejected = item.members[0].completion_id, item.members[1].completion_id
        row = SnapshotRow(
            snapshot_id=snapshot.id, split=Split.TRAIN, position=position, source=PairSource.COMPARISON,
            prompt_id=item.prompt_id, chosen_id=chosen, rejected_id=rejected, weight=1.0,
        )  # fmt: skip
        session.add(row)
        session.flush()
        session.add(SnapshotRowAnnotation(snapshot_row_id=row.id, annotation_id=annotation.id))
    session.flush()
    return snapshot


def make_evaluation(session: Session, version: ModelVersion, split: Split = Split.TEST, **metrics: float) -> Evaluation:
    evaluation = Evaluation(
        version_id=version.id, run_id=version.run_id, snapshot_id=version.snapshot_id, split=split, metrics=metrics
    )
    session.add(evaluation)
    session.flush()
    return evaluation


def make_judgeable(
    session: Session, version: ModelVersion, champion: ModelVersion | None, **changed: Any
) -> Evaluation:
    """An evaluation against the champion with which a gate can do something: a clear win, at little cost."""

    def figure(value: float, low: float, high: float) -> dict[str, Any]:
        return {"value": value, "low": low, "high": high, "n": 200, "champion": None, "difference": None}

    figures = {
        "win_rate": figure(0.62, 0.55, 0.69), "kl": figure(12.0, 10.0, 14.0), "length_ratio": figure(1.1, 1.0, 1.2)
    }  # fmt: skip
    for name, own, low, high in (
        ("implicit_accuracy", 0.6, -0.03, 0.09), ("chosen_logprob", -2.0, -0.05, 0.2), ("perplexity", 20.0, -1.0, 1.5)
    ):  # fmt: skip
        told = {"value": (low + high) / 2, "low": low, "high": high}
        figures[name] = figure(own + told["value"], own + low, own + high) | {"champion": own, "difference": told}
    metrics = {"kind": version.kind.value, "figures": figures | changed}
    evaluation = Evaluation(
        version_id=version.id, champion_id=champion.id if champion else None, split=Split.TEST, metrics=metrics
    )
    session.add(evaluation)
    session.flush()
    return evaluation


def make_event(session: Session, user: User | None = None, project: Project | None = None) -> AuditEvent:
    return audit.record(session, user, "test.event", "nothing", project, n=next(_numbers))


def later(**span: float) -> datetime:
    """The present moment plus `span` (`minutes=5`)."""
    return utc_now() + timedelta(**span)


def fill_store(session: Session) -> Project:
    """At least one row in every table, as a used installation has."""
    project = make_project(session, overlap=2)
    user, operator = make_user(session, "ann"), make_user(session, "olga", Role.OPERATOR)
    make_link(session, user)
    make_login(session, operator)
    make_items(session, project, 3)
    lease = make_lease(session, project, user)
    annotation = annotations.submit(session, lease.assignment_id, user, full_submission(lease, project))
    annotations.save_draft(session, make_lease(session, project, user).assignment_id, user, {"critique": "so far"})
    snapshot = make_snapshot(session, project, [annotation])
    version = make_version(session, project, snapshot=snapshot)
    registry.promote(session, version, operator, "better")
    make_evaluation(session, version, accuracy=0.8)
    run = make_run(session, project, worker="filler")
    run.parent_run_id = cycle.queue_cycle(session, project, {}).id
    runs.add_metrics(session, run.id, [runs.MetricPoint(1, "loss", 0.7)])
    runs.add_log(session, run.id, ["step 1"])
    session.add(CompletionScore(completion_id=lease.completions[0][0], version_id=version.id, value=0.3))
    _fill_doors(session, project, user, annotation)
    _fill_learning(session, annotation, snapshot, version)
    _fill_decisions(session, project, version)
    return project


def _fill_learning(session: Session, annotation: Annotation, snapshot: Snapshot, version: ModelVersion) -> None:
    """A model's refinement of what the annotation criticised, in a row of the snapshot, and what became of it."""
    critique = annotation.critiques[0]
    item = session.get_one(Item, annotation.item_id)
    written = make_completion(session, item.prompt, origin=CompletionOrigin.REFINEMENT, model_version_id=version.id)
    refinement = Refinement(
        completion_id=critique.completion_id, refined_id=written.id, run_id=version.run_id, judge_score=0.8, rank=1,
        status=RefinementStatus.UNREVIEWED,
    )  # fmt: skip
    row = session.scalars(select(SnapshotRow).where(SnapshotRow.snapshot_id == snapshot.id)).one()
    session.add(refinement)
    session.flush()
    session.add_all(
        [
            RefinementCritique(refinement_id=refinement.id, critique_id=critique.id),
            SnapshotRowCritique(snapshot_row_id=row.id, critique_id=critique.id),
            SnapshotRowRefinement(snapshot_row_id=row.id, refinement_id=refinement.id),
            Resolution(critique_id=critique.id, completion_id=written.id, version_id=version.id, held_out=False),
        ]
    )
    project = session.get_one(Project, item.project_id)
    rule = rules.add_rule(session, project, {"name": "dates", "instruction": "Give a date."}, None)
    rules.tie_critiques(session, rule, [critique.id])
    session.add(CompletionRule(completion_id=written.id, rule_id=rule.id, revision=1))
    session.add(SnapshotRowRule(snapshot_row_id=row.id, rule_id=rule.id))
    session.flush()


def _fill_decisions(session: Session, project: Project, version: ModelVersion) -> None:
    """A blind test with one item of the queue, a gate that rests on it, and an alert."""
    sides = {"project_id": project.id, "champion_id": version.id}
    test = BlindTest(candidate_id=version.id, settings={"error_rate": 0.05}, **sides)
    session.add(test)
    session.flush()
    item = session.scalars(select(Item).where(Item.project_id == project.id).limit(1)).one()
    session.add_all(
        [
            BlindTestItem(item_id=item.id, blind_test_id=test.id),
            GateResult(
                version_id=version.id, blind_test_id=test.id, verdict=GateVerdict.PASS, settings={}, figures={}, **sides
            ),
            Alert(project_id=project.id, version_id=version.id, name="win_rate", text="It fell.", figures={}),
        ]
    )
    session.flush()


def _fill_doors(session: Session, project: Project, user: User, annotation: Annotation) -> None:
    session.add(Identity(user_id=user.id, issuer="https://id.example", subject="42"))
    session.add(ProjectMember(project_id=project.id, user_id=user.id))
    session.add(Standing(project_id=project.id, user_id=user.id, admitted=Admission.EXISTING, admitted_at=utc_now()))
    session.add(Conversation(project_id=project.id, user_id=user.id, draft="Where is my"))
    session.add(Ranking(annotation_id=annotation.id, completion_id=annotation.preferences[0].first_id, rank=1))
    token = ApiToken(user_id=user.id, name="shop", token_hash="f" * 64, scopes=["feedback"])
    hook = Webhook(project_id=project.id, url="https://shop.example/hook", secret="s" * 32, events=["annotation"])
    session.add_all([token, hook])
    session.flush()
    session.add(ApiRequest(token_id=token.id, key="once", request_hash="0" * 64, status=201, response={"id": 1}))
    session.add(WebhookDelivery(webhook_id=hook.id, event="annotation", payload={"id": annotation.id}))
    session.flush()
