"""What programs read: projects, prompts, items, annotations, models and runs, and exports as files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query, Request
from sqlalchemy import select
from sqlalchemy.orm import contains_eager, joinedload, selectinload

from feedback_app import policies
from feedback_app.api import schemas as s
from feedback_app.api.auth import Access
from feedback_app.api.door import After, Limit, ProjectAsked, access_of, pick, reading
from feedback_app.handlers.context import Context
from feedback_app.handlers.data import DOWNLOAD_FORMATS, make_download
from feedback_app.sent_once import SentOnce, sent_once
from storage import members, registry, runs
from storage.engine import read_only, translate_errors
from storage.enums import AnnotationStatus, ItemStatus, TokenScope
from storage.export import TABLES
from storage.models import Annotation, Completion, Item, ItemCompletion, ModelVersion, Prompt, Run
from storage.resolution import Rates, resolution_rates

TableName = Annotated[str, Query(json_schema_extra={"enum": list(TABLES)}, description="What to export.")]
FormatName = Annotated[str, Query(json_schema_extra={"enum": list(DOWNLOAD_FORMATS)})]
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"application/octet-stream": {}}}
}


class _Row(Protocol):
    id: Any


def router(ctx: Context) -> APIRouter:
    """The routes that change nothing."""
    routes = APIRouter()

    @routes.get("/projects", summary="Projects that the token may use")
    def list_projects(request: Request) -> s.Projects:
        access = access_of(request)
        with reading(ctx, access, policies.annotate) as session:
            found = members.list_projects(session, access.user)
            mine = [one for one in found if access.project_id in (None, one.id)]
            return s.Projects(projects=[s.ProjectShown.model_validate(one, from_attributes=True) for one in mine])

    @routes.get("/prompts", summary="Prompts")
    def list_prompts(request: Request, project: ProjectAsked = None, after: After = 0, limit: Limit = 100) -> s.Prompts:
        access = access_of(request)
        with reading(ctx, access, policies.see_operations) as session:
            here = pick(session, access, project)
            query = select(Prompt).where(Prompt.project_id == here.id, Prompt.id > after)
            rows = session.scalars(query.order_by(Prompt.id).limit(limit)).all()
            shown = [s.PromptShown.model_validate(row, from_attributes=True) for row in rows]
            return s.Prompts(prompts=shown, next=_next(rows, limit))

    @routes.get("/items", summary="Items: prompts with completions to be judged")
    def list_items(
        request: Request,
        project: ProjectAsked = None,
        status: ItemStatus | None = None,
        after: After = 0,
        limit: Limit = 100,
    ) -> s.Items:
        access = access_of(request)
        with reading(ctx, access, policies.see_operations) as session:
            here = pick(session, access, project)
            query = select(Item).where(Item.project_id == here.id, Item.id > after)
            if status is not None:
                query = query.where(Item.status == status)
            members_of = selectinload(Item.members).joinedload(ItemCompletion.completion)
            rows = session.scalars(
                query.options(joinedload(Item.prompt), members_of).order_by(Item.id).limit(limit)
            ).all()
            completions = [member.completion for row in rows for member in row.members]
            names = _model_names(session.scalars(_versions_of(completions)).all())
            return s.Items(items=[_item_shown(row, names) for row in rows], next=_next(rows, limit))

    @routes.get("/annotations", summary="Annotations")
    def list_annotations(
        request: Request, project: ProjectAsked = None, after: After = 0, limit: Limit = 100
    ) -> s.Annotations:
        access = access_of(request)
        with reading(ctx, access, policies.see_operations) as session:
            here = pick(session, access, project)
            query = (
                select(Annotation)
                .join(Item, Item.id == Annotation.item_id)
                .where(Item.project_id == here.id, Annotation.id > after)
                .where(Annotation.status == AnnotationStatus.SUBMITTED)
                .options(joinedload(Annotation.user), contains_eager(Annotation.item))
                .options(*(selectinload(part) for part in _PARTS))
                .order_by(Annotation.id)
                .limit(limit)
            )
            rows = session.scalars(query).all()
            scales = {criterion.id: criterion.name for criterion in here.criteria}
            shown = [_annotation_shown(row, scales) for row in rows]
            return s.Annotations(annotations=shown, next=_next(rows, limit))

    @routes.get("/models", summary="Model versions")
    def list_models(request: Request, project: ProjectAsked = None) -> s.Models:
        access = access_of(request)
        with reading(ctx, access, policies.see_operations) as session:
            here = pick(session, access, project)
            rates = resolution_rates(session, here)
            return s.Models(
                models=[_model_shown(row, rates.get(row.id)) for row in registry.list_versions(session, here)]
            )

    @routes.get("/runs", summary="The newest runs")
    def list_runs(request: Request, project: ProjectAsked = None, limit: Limit = 50) -> s.Runs:
        access = access_of(request)
        with reading(ctx, access, policies.see_operations) as session:
            rows = runs.list_runs(session, pick(session, access, project), limit)
            return s.Runs(runs=[run_shown(row) for row in rows])

    _add_export(routes, ctx)
    return routes


def _add_export(routes: APIRouter, ctx: Context) -> None:
    @routes.get("/export", summary="Everything collected, as a file", response_class=SentOnce, responses=_FILE)
    def export(
        request: Request,
        project: ProjectAsked = None,
        table: TableName = "preference",
        format: FormatName = "jsonl",
    ) -> SentOnce:
        access = access_of(request)
        access.require(TokenScope.EXPORT, policies.export_data)
        name = _name_of(ctx, access, project)
        path, report = make_download(ctx, access.user.name, name, table, format)
        return sent_once(path, report, name, table, format)


def _name_of(ctx: Context, access: Access, project: str | None) -> str:
    with translate_errors(), read_only(ctx.sessions) as session:
        return pick(session, access, project).name


def run_shown(run: Run) -> s.RunShown:
    """A run as the API shows it."""
    return s.RunShown.model_validate(run, from_attributes=True)


def _model_shown(row: ModelVersion, rates: Rates | None) -> s.ModelShown:
    shown = s.ModelShown.model_validate(row, from_attributes=True)
    return shown.model_copy(update={"resolution": rates.as_dict() if rates else None})


_PARTS = (
    Annotation.ratings,
    Annotation.preferences,
    Annotation.rankings,
    Annotation.critiques,
    Annotation.refinements,
)


def _next(rows: Sequence[_Row], limit: int) -> int | None:
    return int(rows[-1].id) if len(rows) == limit else None


def _versions_of(completions: Sequence[Completion]) -> Any:
    ids = {one.model_version_id for one in completions if one.model_version_id is not None}
    return select(ModelVersion).where(ModelVersion.id.in_(ids))


def _model_names(versions: Sequence[ModelVersion]) -> dict[int, str]:
    return {version.id: version.name for version in versions}


def _item_shown(item: Item, names: dict[int, str]) -> s.ItemShown:
    written = [member.completion for member in item.members]
    return s.ItemShown(
        id=item.id,
        prompt_id=item.prompt_id,
        kind=item.kind,
        status=item.status,
        gold=item.gold is not None,
        judged=item.judged,
        messages=item.prompt.messages,
        completions=[
            s.CompletionShown(id=one.id, text=one.text, origin=one.origin, model=names.get(one.model_version_id or 0))
            for one in written
        ],
        created_at=item.created_at,
    )


def _annotation_shown(row: Annotation, scales: dict[int, str]) -> s.AnnotationShown:
    return s.AnnotationShown(
        id=row.id,
        item_id=row.item_id,
        annotator=row.user.name,
        submitted_at=row.submitted_at,
        superseded_at=row.superseded_at,
        withdrawn_at=row.withdrawn_at,
        gold=row.item.gold is not None,
        gold_score=row.gold_score,
        seconds_spent=row.seconds_spent,
        ratings=[
            {"completion_id": one.completion_id, "criterion": scales[one.criterion_id], "value": one.value}
            for one in row.ratings
        ],
        preferences=[
            {"first_id": one.first_id, "second_id": one.second_id, "outcome": one.outcome, "strength": one.strength}
            for one in row.preferences
        ],
        ranking=[{"completion_id": one.completion_id, "rank": one.rank} for one in row.rankings],
        critiques=[
            {
                "completion_id": one.completion_id,
                "text": one.text,
                "span": [one.span_start, one.span_end] if one.span_start is not None else None,
                "tags": one.tags,
                "fix": one.fix,
            }
            for one in row.critiques
        ],
        refinements=[{"completion_id": one.completion_id, "refined_id": one.refined_id} for one in row.refinements],
    )
