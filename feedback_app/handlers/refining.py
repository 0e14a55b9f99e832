"""How a project's critiques become training data: who rewrites, how often and how warm, and the wordings for models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import text
from storage import members
from storage.configs import AnnotationSettings, RefinerSettings, TemplateSettings, parse
from storage.enums import ModelKind
from storage.models import Project
from storage.registry import list_versions
from storage.wordings import DIVIDER, Templates, divided, on_starter, own_wordings, templates_of

# Names of the form's fields, where the project's sampling has a temperature too.
REFINER = {"refiner": "refiner", "endpoint_model": "endpoint_model", "samples": "samples", "warmth": "temperature"}
WORDINGS = tuple(TemplateSettings.model_fields)


@dataclass(frozen=True)
class RefiningView:
    """What the form shows: `wordings` are those in force, the project's own or ours."""

    settings: RefinerSettings = RefinerSettings()  # noqa: RUF009  frozen
    versions: tuple[str, ...] = ()
    wordings: Templates = Templates()  # noqa: RUF009  frozen


def see_refining(ctx: Context, session: Session, project: Project) -> RefiningView:
    """The refiner and the wordings of a project, and the versions that could refine."""
    own = parse(AnnotationSettings, project.annotation_settings or {})
    versions = [one.name for one in list_versions(session, project) if one.kind is ModelKind.POLICY and one.folder]
    wordings = templates_of(own.templates, starter=on_starter(project, ctx.settings.base_model))
    return RefiningView(own.refining, tuple(versions), wordings)


def as_fields(wordings: Templates) -> dict[str, str]:
    """Wordings as the form's texts."""
    shown = asdict(wordings)
    return shown | {"judge": f"\n{DIVIDER}\n".join(wordings.judge)}


def from_fields(ctx: Context, project: Project, values: Mapping[str, Any]) -> dict[str, Any]:
    """The annotation settings that the form's `values` say, by its names; what is not among them is left out.

    A wording that is as the application has it is none of the project's own: it follows later versions of ours.
    """
    settings: dict[str, Any] = {}
    if "refiner" in values:
        settings["refining"] = {name: values.get(field) for field, name in REFINER.items()}
        model = text(values.get("endpoint_model"), "model at the endpoint", 200).strip()
        settings["refining"]["endpoint_model"] = model if model and values["refiner"] == "endpoint" else None
    if WORDINGS[0] in values:
        told: dict[str, Any] = {name: text(values.get(name), "wording").strip() for name in WORDINGS}
        told["judge"] = divided(told["judge"])
        settings["templates"] = own_wordings(told, starter=on_starter(project, ctx.settings.base_model))
    return settings


def default_wordings(ctx: Context, name: str | None, project: str | None) -> dict[str, str]:
    """The application's own wordings for a project's model, as the form's texts."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = members.get_project(session, user, project or "")
        return as_fields(templates_of(TemplateSettings(), starter=on_starter(found, ctx.settings.base_model)))
