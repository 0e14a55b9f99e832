"""A project's settings: guidelines, criteria, queue, sampling, training policy; and creating one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.refining import RefiningView, from_fields, see_refining
from feedback_app.handlers.values import text, to_enum, whole
from feedback_app.i18n import t
from storage import audit, members, projects, schedule
from storage.configs import AnnotationSettings, PolicyMode, SamplingSettings, SourceWeights, TrainingPolicy, parse
from storage.cycle_configs import CycleSettings
from storage.enums import Role
from storage.errors import FeedbackError, Invalid
from storage.models import Criterion, Project, utc_now
from storage.projects import CriterionSpec
from storage.schedule import Due

MAX_CRITERIA = 20
WEIGHTS = tuple(SourceWeights.model_fields)  # of a training policy
RESOLUTION_FIELDS = ("resolution_below", "resolution_least")  # of a training policy
CYCLE_FIELDS = ("steps", "recipe")  # of cycle settings
SAMPLING_FIELDS = ("temperature", "top_p", "max_new_tokens", "best_of", "caution")
SHARES = ("review_share", "resolution_share")  # of annotation settings


@dataclass(frozen=True)
class ProjectView:
    """A project's settings as the form shows them, and when it trains next."""

    project: str | None
    projects: list[str]
    me: str
    my_role: Role
    guidelines: str = ""
    criteria: tuple[Criterion, ...] = ()
    base_model: str = ""
    default_base_model: str = ""
    overlap: int = 1
    queue_target: int = 20
    sampling: SamplingSettings = SamplingSettings()  # noqa: RUF009  frozen
    policy: TrainingPolicy = TrainingPolicy()  # noqa: RUF009  frozen
    tags: tuple[str, ...] = ()
    annotating: AnnotationSettings = AnnotationSettings()  # noqa: RUF009  frozen
    cycle: CycleSettings = CycleSettings()  # noqa: RUF009  frozen
    refining: RefiningView = RefiningView()  # noqa: RUF009  frozen
    due: Due | None = None


def see_project(ctx: Context, name: str | None, project: str | None) -> ProjectView:
    """The settings of `project`, or of the first one when it is not there."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        known = members.list_projects(session, user)
        found = next((one for one in known if one.name == project), known[0] if known else None)
        base = ProjectView(None, [one.name for one in known], user.name, user.role)
        return _view(ctx, session, found, base) if found else base


def save(ctx: Context, name: str | None, project: str | None, values: Mapping[str, Any], criteria: Any) -> None:
    """Change a project; `values` are the form's fields by name, `criteria` rows of (name, description, low, high).

    Raises `Invalid` that names the field; nothing is changed then.
    """
    with ctx.writing(name, policies.edit_project) as (session, user):
        found = members.get_project(session, user, project or "")
        given = {**found.training_policy, **values}
        fields = {
            "guidelines": text(values.get("guidelines"), "guidelines"),
            "criteria": criteria_from(criteria),
            "base_model": text(values.get("base_model"), "base model", 500),
            "tags": tags_from(values.get("tags")),
            "annotation_settings": {
                "order": "judge_first" if values.get("judge_first") is True else "free",
                "playground": values.get("playground") is not False,
                "daily_target": whole(values.get("daily_target"), "daily target"),
                **{name: values[name] for name in SHARES if name in values},
                **({"formats": text(values["formats"], "formats", 10_000)} if "formats" in values else {}),
                **from_fields(ctx, found, values),
            },
            "overlap": whole(values.get("overlap"), "annotators per item"),
            "queue_target": whole(values.get("queue_target"), "items kept ready"),
            "sampling": {**found.sampling, **{key: values[key] for key in SAMPLING_FIELDS if key in values}},
            "training_policy": {
                **{name: given[name] for name in WEIGHTS if name in given},
                "mode": to_enum(PolicyMode, values.get("mode"), "training mode").value,
                "every_n": whole(values.get("every_n"), "new annotations"),
                "cron": text(values.get("cron"), "cron line", 200).strip(),
                "kinds": values.get("kinds"),
                **{name: values[name] for name in RESOLUTION_FIELDS if name in values},
            },
            "cycle_settings": {name: values[name] for name in CYCLE_FIELDS if name in values},
        }
        projects.update_project(session, found, **fields)
        audit.record(session, user, "project.update", found.name, found)


def create(ctx: Context, name: str | None, new_name: Any) -> str:
    """Add a project with the default criteria, in the creator's language, and return its name.

    Raises `Conflict` when the name is taken.
    """
    criteria = [one._replace(name=t(one.name), description=t(one.description)) for one in projects.DEFAULT_CRITERIA]
    with ctx.writing(name, policies.edit_project) as (session, user):
        made = projects.create_project(session, text(new_name, "project name", 200), criteria=criteria)
        audit.record(session, user, "project.create", made.name, made)
        return made.name


def criteria_from(rows: Any) -> list[CriterionSpec]:
    """Criteria from the rows of the table; empty rows do not count. Raises `Invalid` for a bad scale or too many."""
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise Invalid("criteria: give rows of name, description, lowest, highest")
    specs = []
    for row in rows:
        if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 4:
            raise Invalid("criteria: give rows of name, description, lowest, highest")
        label = text(row[0], "criterion's name", 200).strip()
        if label:
            low, high = (whole(value, f"scale of '{label}'") for value in row[2:])
            specs.append(CriterionSpec(label, text(row[1], "description", 2000).strip(), low, high))
    if len(specs) > MAX_CRITERIA:
        raise Invalid(f"at most {MAX_CRITERIA} criteria; annotators answer each of them for each completion")
    return specs


def tags_from(value: Any) -> list[str]:
    """Quick tags from a text, one a line."""
    return [line.strip() for line in text(value, "quick tags").splitlines() if line.strip()]


def _view(ctx: Context, session: Session, project: Project, base: ProjectView) -> ProjectView:
    return ProjectView(
        project=project.name,
        projects=base.projects,
        me=base.me,
        my_role=base.my_role,
        guidelines=project.guidelines,
        criteria=tuple(project.criteria),
        base_model=project.base_model or "",
        default_base_model=ctx.settings.base_model,
        overlap=project.overlap,
        queue_target=project.queue_target,
        tags=tuple(project.tags),
        annotating=parse(AnnotationSettings, project.annotation_settings),
        sampling=parse(SamplingSettings, project.sampling),
        policy=parse(TrainingPolicy, project.training_policy),
        cycle=parse(CycleSettings, project.cycle_settings or {}),
        refining=see_refining(ctx, session, project),
        due=due_of(session, project),
    )


def due_of(session: Session, project: Project) -> Due:
    """What the project starts by itself, and what it waits for."""
    try:
        return schedule.due(session, project, utc_now())
    except FeedbackError as error:  # a policy stored by an older version: shown, so that it can be mended here
        return Due(str(error))
