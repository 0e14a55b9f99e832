"""Lineage: from a version to what trained it, from an annotation to what learned from it, and training it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from feedback_app import policies
from feedback_app.handlers.context import Context
from storage import members, rebuilding, registry, taint
from storage.chances import Chances, chances
from storage.enums import Outcome
from storage.errors import NotFound
from storage.export.adapter import adapter_files, heads_beside
from storage.export.model_card import ADAPTER, card_facts, model_card
from storage.lineage import Decided, Lineage, TaughtPage, Traced, decided, lineage, project_of_annotation, taught, trace
from storage.models import Completion, ModelVersion, Run
from storage.taint import Standing


@dataclass(frozen=True)
class VersionLineage:
    """A version, what it came from, a page of the rows that trained it, and what came of it."""

    project: str
    version: ModelVersion
    line: Lineage
    standing: Standing
    stands: Decided
    page: TaughtPage
    rebuilds: list[Run]
    rebuilt_as: ModelVersion | None
    rebuild_of: str | None
    chances: Chances  # that the chosen completion of a row is better


class Pair(NamedTuple):
    """Two completions that an annotation compared."""

    first: Completion
    second: Completion
    outcome: Outcome


@dataclass(frozen=True)
class AnnotationLineage:
    """An annotation, what learned from it, and what it compared, with how probably the first was better."""

    traced: Traced
    compared: list[Pair]
    chances: Chances


def see_version(
    ctx: Context, name: str | None, project: str, version: str, after: int = 0, tainted: bool = False
) -> VersionLineage:
    """The lineage of a version; raises `NotFound` for a project or version that is not there for this person."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = members.get_project(session, user, project)
        row = registry.get_version(session, found, version)
        line = lineage(session, row)
        page = TaughtPage([], None)
        if line.snapshot is not None:
            page = taught(session, line.snapshot, after=after, tainted=tainted)
        pairs = [(one.row.chosen_id, one.row.rejected_id) for one in page.rows]
        return VersionLineage(
            project=found.name,
            version=row,
            line=line,
            standing=taint.standing(session, found)[row.id],
            stands=decided(session, row),
            page=page,
            rebuilds=rebuilding.rebuilds(session, row),
            rebuilt_as=rebuilding.rebuilt_as(session, row),
            rebuild_of=rebuilding.rebuild_of(session, row),
            chances=chances(session, found, [(a, b) for a, b in pairs if b is not None]),
        )


def see_annotation(ctx: Context, name: str | None, annotation_id: int) -> AnnotationLineage:
    """What learned from an annotation; raises `NotFound` also where its project is closed to this person."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = project_of_annotation(session, annotation_id)
        if not members.may_enter(session, user, found):
            raise NotFound(f"there is no annotation {annotation_id}")
        traced = trace(session, found, annotation_id)
        compared = [
            Pair(session.get_one(Completion, one.first_id), session.get_one(Completion, one.second_id), one.outcome)
            for one in traced.annotation.preferences
        ]
        return AnnotationLineage(
            traced, compared, chances(session, found, [(one.first.id, one.second.id) for one in compared])
        )


def download(ctx: Context, name: str | None, project: str, version: str) -> dict[str, Path | bytes]:
    """The files of a version's adapter with its card, by their names in an archive."""
    with ctx.reading(name, policies.export_data) as (session, user):
        found = members.get_project(session, user, project)
        facts = card_facts(session, registry.get_version(session, found, version))
    files = adapter_files(facts.version, ctx.settings.home)
    heads = heads_beside(ctx.settings.home / str(facts.version.folder))
    card = model_card(facts, tokenizer=False, heads=heads)
    inside: dict[str, Path | bytes] = {f"{ADAPTER}/{one}": content for one, content in files.items()}
    return {"README.md": card.encode()} | inside


def rebuild(ctx: Context, name: str | None, project: str, version: str) -> int:
    """Queue the training of a tainted version without what was taken back; the number of the run."""
    with ctx.writing(name, policies.train) as (session, user):
        found = members.get_project(session, user, project)
        run = rebuilding.rebuild(
            session,
            registry.get_version(session, found, version),
            home=ctx.settings.home,
            default_base_model=ctx.settings.base_model,
            user=user,
        )
        return run.id
