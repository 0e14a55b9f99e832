"""Every submitted annotation whole, one row each, also those that were superseded or withdrawn: nothing is lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES
from storage.export.rows import IDS, MOMENT, Table, by_name, messages, submitted, submitted_in
from storage.models import (
    Annotation,
    Assignment,
    Completion,
    Criterion,
    Critique,
    Item,
    ItemCompletion,
    ModelVersion,
    Preference,
    Project,
    Prompt,
    Ranking,
    Rating,
    Refinement,
    User,
)
from storage.windows import Window

_TEXTS = pa.list_(
    pa.struct([("id", pa.int64()), ("text", pa.string()), ("origin", pa.string()), ("model_version", pa.string())])
)
_COMPARISON = pa.struct(
    [("first_id", pa.int64()), ("second_id", pa.int64()), ("outcome", pa.string()), ("strength", pa.int64())]
)
_RATING = pa.struct([("completion_id", pa.int64()), ("criterion", pa.string()), ("value", pa.int64())])
_CRITIQUE = pa.struct(
    [
        ("completion_id", pa.int64()),
        ("text", pa.string()),
        ("span_start", pa.int64()),
        ("span_end", pa.int64()),
        ("tags", pa.list_(pa.string())),
        ("fix", pa.string()),
    ]
)
_RANK = pa.struct([("completion_id", pa.int64()), ("rank", pa.int64())])
_REFINEMENT = pa.struct([("completion_id", pa.int64()), ("refined_id", pa.int64()), ("text", pa.string())])
SCHEMA = pa.schema(
    [
        ("annotation_id", pa.int64()),
        ("annotator", pa.string()),
        ("state", pa.string()),
        ("prompt", MESSAGES),
        ("completions", _TEXTS),
        ("shown_order", IDS),
        ("preferences", pa.list_(_COMPARISON)),
        ("rankings", pa.list_(_RANK)),
        ("ratings", pa.list_(_RATING)),
        ("critiques", pa.list_(_CRITIQUE)),
        ("refinements", pa.list_(_REFINEMENT)),
        ("seconds_spent", pa.float64()),
        ("submitted_at", MOMENT),
        ("superseded_by_id", pa.int64()),
        ("withdrawn_at", MOMENT),
        ("split", pa.string()),
        ("prompt_id", pa.int64()),
        ("item_id", pa.int64()),
    ]
)


def table(session: Session, project: Project) -> Table:
    """One row a submitted annotation; drafts are private, practice is none.

    `state` is live, superseded, withdrawn, or gold: said on a gold item, which is no feedback.
    """
    return by_name(SCHEMA, _rows(session, project))


def _rows(session: Session, project: Project) -> Iterator[dict[str, Any]]:
    for window in submitted(session, project):
        parts = {
            "preferences": _grouped(session, _preferences(project, window)),
            "rankings": _grouped(session, _rankings(project, window)),
            "ratings": _grouped(session, _ratings(project, window)),
            "critiques": _grouped(session, _critiques(project, window)),
            "refinements": _grouped(session, _refinements(project, window)),
            "completions": _grouped(session, _completions(project, window)),
        }
        for completion in (one for found in parts["completions"].values() for one in found):
            number = completion.pop("number")
            kind = completion.pop("kind")
            completion["model_version"] = None if kind is None else f"{kind.value}-v{number}"
        for row in session.execute(_annotations(project, window)).mappings():
            withdrawn, superseded = row["withdrawn_at"] is not None, row["superseded_at"] is not None
            gold = row["gold"]
            yield {
                **{name: value for name, value in row.items() if name not in ("superseded_at", "gold")},
                **{name: found.get(row["annotation_id"], []) for name, found in parts.items()},
                "prompt": messages(row["prompt"]),
                "split": row["split"].value,
                "state": "withdrawn" if withdrawn else "superseded" if superseded else "gold" if gold else "live",
            }


def _annotations(project: Project, window: Window) -> Select[*tuple[Any, ...]]:
    return (
        select(
            Annotation.id.label("annotation_id"),
            User.name.label("annotator"),
            Prompt.messages.label("prompt"),
            Assignment.shown_order,
            Annotation.seconds_spent,
            Annotation.submitted_at,
            Annotation.superseded_at,
            Annotation.superseded_by_id,
            Annotation.withdrawn_at,
            Item.gold.is_not(None).label("gold"),
            Prompt.split,
            Prompt.id.label("prompt_id"),
            Item.id.label("item_id"),
        )
        .select_from(Annotation)
        .join(Item, Item.id == Annotation.item_id)
        .join(Prompt, Prompt.id == Item.prompt_id)
        .join(User, User.id == Annotation.user_id)
        .outerjoin(Assignment, Assignment.id == Annotation.assignment_id)
        .where(submitted_in(project, window))
        .order_by(Annotation.id)
    )


def _grouped(session: Session, query: Select[*tuple[Any, ...]]) -> dict[int, list[dict[str, Any]]]:
    """Rows by their annotation, which is the query's first column."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in session.execute(query).mappings():
        values = dict(row)
        found[values.pop("of")].append(values)
    return found


def _preferences(project: Project, window: Window) -> Select[*tuple[Any, ...]]:
    return (
        select(
            Annotation.id.label("of"),
            Preference.first_id,
            Preference.second_id,
            Preference.outcome,
            Preference.strength,
        )
        .join(Item, Item.id == Annotation.item_id)
        .join(Preference, Preference.annotation_id == Annotation.id)
        .where(submitted_in(project, window))
        .order_by(Preference.id)
    )


def _rankings(project: Project, window: Window) -> Select[*tuple[Any, ...]]:
    return (
        select(Annotation.id.label("of"), Ranking.completion_id, Ranking.rank)
        .join(Item, Item.id == Annotation.item_id)
        .join(Ranking, Ranking.annotation_id == Annotation.id)
        .where(submitted_in(project, window))
        .order_by(Annotation.id, Ranking.rank, Ranking.completion_id)
    )


def _ratings(project: Project, window: Window) -> Select[*tuple[Any, ...]]:
    return (
        select(
            Annotation.id.label("of"),
            Rating.completion_id,
            Criterion.name.label("criterion"),
            Rating.value,
        )
        .join(Item, Item.id == Annotation.item_id)
        .join(Rating, Rating.annotation_id == Annotation.id)
        .join(Criterion, Criterion.id == Rating.criterion_id)
        .where(submitted_in(project, window))
        .order_by(Rating.id)
    )


def _critiques(project: Project, window: Window) -> Select[*tuple[Any, ...]]:
    return (
        select(
            Annotation.id.label("of"),
            Critique.completion_id,
            Critique.text,
            Critique.span_start,
            Critique.span_end,
            Critique.tags,
            Critique.fix,
        )
        .join(Item, Item.id == Annotation.item_id)
        .join(Critique, Critique.annotation_id == Annotation.id)
        .where(submitted_in(project, window))
        .order_by(Critique.id)
    )


def _refinements(project: Project, window: Window) -> Select[*tuple[Any, ...]]:
    return (
        select(
            Annotation.id.label("of"),
            Refinement.completion_id,
            Refinement.refined_id,
            Completion.text,
        )
        .join(Item, Item.id == Annotation.item_id)
        .join(Refinement, Refinement.annotation_id == Annotation.id)
        .join(Completion, Completion.id == Refinement.refined_id)
        .where(submitted_in(project, window))
        .order_by(Refinement.id)
    )


def _completions(project: Project, window: Window) -> Select[*tuple[Any, ...]]:
    return (
        select(
            Annotation.id.label("of"),
            Completion.id,
            Completion.text,
            Completion.origin,
            ModelVersion.kind,
            ModelVersion.number,
        )
        .join(Item, Item.id == Annotation.item_id)
        .join(ItemCompletion, ItemCompletion.item_id == Item.id)
        .join(Completion, Completion.id == ItemCompletion.completion_id)
        .outerjoin(ModelVersion, ModelVersion.id == Completion.model_version_id)
        .where(submitted_in(project, window))
        .order_by(Annotation.id, ItemCompletion.position)
    )
