"""What became of rules: what was written under each, how often that is criticised, and which versions learned it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from storage.enums import CompletionOrigin, ModelKind, RuleState, VersionStatus
from storage.judged import live_annotation
from storage.models import (
    Annotation,
    Completion,
    CompletionRule,
    Critique,
    Item,
    ItemCompletion,
    ModelVersion,
    Project,
    Prompt,
    Rule,
    SnapshotRow,
    SnapshotRowRule,
)
from storage.quality.shares import Share
from storage.rule_scope import RuleBook


class Learned(NamedTuple):
    """A model version that was trained on rows of a rule."""

    version: str
    rows: int
    champion: bool


@dataclass(frozen=True)
class RuleFigures:
    """Of one rule. The shares are of judged completions of models on prompts in its scope: how many were criticised."""

    written: int = 0  # completions under it, in whatever words
    before: Share = Share(0, 0)  # noqa: RUF009  frozen
    under: Share = Share(0, 0)  # noqa: RUF009  frozen
    versions: tuple[Learned, ...] = ()


def figures(session: Session, project: Project) -> dict[int, RuleFigures]:
    """The figures of every rule of the project that was ever turned on or off, by its id."""
    book = RuleBook(
        session.scalars(
            select(Rule).where(
                Rule.project_id == project.id, Rule.state.not_in((RuleState.SUGGESTED, RuleState.DISMISSED))
            )
        )
    )
    if not book:
        return {}
    written = dict(
        session.execute(
            select(CompletionRule.rule_id, func.count())
            .where(CompletionRule.rule_id.in_([rule.id for rule in book.rules]))
            .group_by(CompletionRule.rule_id)
        ).all()
    )
    hits, totals = _criticised(session, project, book)
    versions = _versions(session, project)
    return {
        rule.id: RuleFigures(
            written.get(rule.id, 0),
            Share(hits[rule.id, False], totals[rule.id, False]),
            Share(hits[rule.id, True], totals[rule.id, True]),
            tuple(versions.get(rule.id, ())),
        )
        for rule in book.rules
    }


def _criticised(
    session: Session, project: Project, book: RuleBook
) -> tuple[Counter[tuple[int, bool]], Counter[tuple[int, bool]]]:
    """Judged completions in scope by (rule, whether under it): those criticised, and all."""
    judged = (
        select(ItemCompletion.completion_id)
        .join(Item, Item.id == ItemCompletion.item_id)
        .join(Annotation, Annotation.item_id == Item.id)
        .where(Item.project_id == project.id, live_annotation())
    )
    own = Annotation.id == Critique.annotation_id
    criticised = exists().where(Critique.completion_id == Completion.id, own, live_annotation())
    rows: Any = session.execute(
        select(Completion.id, Prompt.messages, Prompt.source, criticised)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .where(
            Prompt.project_id == project.id,
            Completion.origin == CompletionOrigin.MODEL,
            Completion.id.in_(judged),
        )
    )
    under: dict[int, set[int]] = defaultdict(set)
    for completion_id, rule_id in session.execute(
        select(CompletionRule.completion_id, CompletionRule.rule_id).where(
            CompletionRule.rule_id.in_([rule.id for rule in book.rules])
        )
    ):
        under[completion_id].add(rule_id)
    hits: Counter[tuple[int, bool]] = Counter()
    totals: Counter[tuple[int, bool]] = Counter()
    for completion_id, messages, source, hit in rows:
        for rule in book.in_scope(messages, source):
            key = rule.id, rule.id in under[completion_id]
            totals[key] += 1
            hits[key] += bool(hit)
    return hits, totals


def _versions(session: Session, project: Project) -> dict[int, list[Learned]]:
    """The versions whose snapshot has rows of a rule, oldest first."""
    rows = session.execute(
        select(SnapshotRowRule.rule_id, SnapshotRow.snapshot_id, func.count())
        .join(SnapshotRow, SnapshotRow.id == SnapshotRowRule.snapshot_row_id)
        .join(Rule, Rule.id == SnapshotRowRule.rule_id)
        .where(Rule.project_id == project.id)
        .group_by(SnapshotRowRule.rule_id, SnapshotRow.snapshot_id)
    ).all()
    made: dict[int, list[ModelVersion]] = defaultdict(list)
    snapshots = {row[1] for row in rows}
    for version in session.scalars(
        select(ModelVersion).where(ModelVersion.snapshot_id.in_(snapshots)).order_by(ModelVersion.id)
    ):
        made[version.snapshot_id or 0].append(version)
    found: dict[int, list[Learned]] = defaultdict(list)
    for rule_id, snapshot_id, count in rows:
        found[rule_id] += [
            Learned(one.name, count, one.status is VersionStatus.CHAMPION)
            for one in made[snapshot_id]
            if one.kind is ModelKind.POLICY
        ]
    return found
