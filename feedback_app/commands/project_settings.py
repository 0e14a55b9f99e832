"""`feedback-app project show|set|reset`: what the Project tab changes, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table
from feedback_app.commands.train import flatten, parse_settings

if TYPE_CHECKING:
    from storage.models import Project

_LISTS = ("tags", "training.kinds", "gate.required", "cycle.steps")  # written with commas
_NUMBERS = ("overlap", "queue_target")
_SHORT = 72  # characters of a value in the table for people


def show(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """The settings of a project, those in force where nothing was set; --json gives wordings in full."""
    from storage.engine import read_only

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        _emit(found.name, settings_of(found, store.settings.base_model), as_json)


def set_(
    pairs: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE…", help="E.g. refining.samples=8; @FILE reads the value from a file."),
    ],
    project: OptionalProject = None,
    as_json: JsonFlag = False,
) -> None:
    """Change settings of a project. Tags and kinds stand with commas between them, wordings with lines of ---."""
    values = {name: _value(name, value) for name, value in parse_settings(pairs, "'NAME=VALUE'").items()}
    _change(project, values, (), as_json)


def reset(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="E.g. templates.refine.")],
    project: OptionalProject = None,
    as_json: JsonFlag = False,
) -> None:
    """Put settings of a project back to what they are by default."""
    _change(project, {}, names, as_json)


def _value(name: str, value: str | None) -> Any:
    """What was typed, as the setting takes it; text that is no number is refused where the setting is."""
    from storage.wordings import divided

    if value is not None and value.startswith("@"):
        try:
            value = Path(value[1:]).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{value[1:]} cannot be read as text; {name} stays as it is") from error
    if name in _LISTS:
        return [part.strip() for part in (value or "").split(",") if part.strip()]
    if name in _NUMBERS and value and value.isdecimal():
        return int(value)
    if name == "templates.judge" and value is not None:
        return divided(value)
    return "" if name == "guidelines" and value is None else value


def _change(project: str | None, values: Mapping[str, Any], names: Iterable[str], as_json: bool) -> None:
    from storage.audit import record
    from storage.projects import update_project

    with open_store() as store, store.sessions.begin() as session:
        found, base = pick_project(session, project), store.settings.base_model
        given = {**values, **{name: _by_default(name) for name in names}}
        update_project(session, found, **_fields(found, given, base))
        record(session, None, "project.update", found.name, found, settings=list(given), by="command line")
        after = settings_of(found, base)
        _emit(found.name, {name: after[name] for name in given}, as_json)


def _emit(project: str, settings: Mapping[str, Any], as_json: bool) -> None:
    rows = [(name, _line(value)) for name, value in settings.items()]
    emit({"project": project, "settings": settings}, as_json, table(("setting", "value"), rows, project))


def _line(value: Any) -> Any:
    listed = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    text = " ".join(str(listed).split()) if isinstance(listed, str) else listed
    return f"{text[:_SHORT]}…" if isinstance(text, str) and len(text) > _SHORT else text


def settings_of(project: Project, default_base_model: str) -> dict[str, Any]:
    """Every setting of a project by its name, wordings as they are in force."""
    from storage.configs import TemplateSettings, parse
    from storage.wordings import on_starter, templates_of

    state = _state(project)
    annotating = state.pop("annotation_settings")
    own = parse(TemplateSettings, annotating["templates"])
    annotating["templates"] = asdict(templates_of(own, starter=on_starter(project, default_base_model)))
    named = {"training": state.pop("training_policy"), "gate": state.pop("gate_settings")}
    named["cycle"] = state.pop("cycle_settings")
    return flatten(state | named | annotating)


def _state(project: Project | None) -> dict[str, Any]:
    """The fields of `storage.projects.update_project` as they are stored; of no project: by default."""
    from storage.configs import AnnotationSettings, SamplingSettings, Settings, TrainingPolicy, parse
    from storage.cycle_configs import CycleSettings
    from storage.gate_configs import GateSettings

    plain: dict[str, Any] = {"guidelines": "", "base_model": None, "tags": [], "overlap": 1, "queue_target": 20}
    if project is not None:
        plain = {name: getattr(project, name) for name in plain}
    kinds: dict[str, type[Settings]] = {
        "sampling": SamplingSettings,
        "training_policy": TrainingPolicy,
        "annotation_settings": AnnotationSettings,
        "gate_settings": GateSettings,
        "cycle_settings": CycleSettings,
    }
    stored: dict[str, Any] = {
        name: parse(kind, getattr(project, name, None) or {}).model_dump(mode="json") for name, kind in kinds.items()
    }
    return deepcopy({**plain, **stored})


def _place(state: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The part of `state` that holds a setting, and its key there; raises `Invalid`."""
    from storage.errors import Invalid

    group, _, key = name.rpartition(".")
    annotating = state["annotation_settings"]
    if not group:
        part = state if name in state else annotating
    else:
        nested = {one: annotating[one] for one in ("refining", "templates")}
        named = {
            "sampling": "sampling",
            "training": "training_policy",
            "gate": "gate_settings",
            "cycle": "cycle_settings",
        }
        part = nested[group] if group in nested else state.get(named.get(group, ""), {})
    if key not in part or isinstance(part[key], dict):
        raise Invalid(f"there is no setting '{name}'; see `feedback-app project show`")
    return part, key


def _by_default(name: str) -> Any:
    part, key = _place(_state(None), name)
    return part[key]


def _fields(project: Project, given: Mapping[str, Any], default_base_model: str) -> dict[str, Any]:
    """What `storage.projects.update_project` is told: the fields in which something changes."""
    from storage.wordings import on_starter, own_wordings

    before, state = _state(project), _state(project)
    for name, value in given.items():
        part, key = _place(state, name)
        part[key] = value
    annotating = state["annotation_settings"]
    if annotating["refining"]["refiner"] != "endpoint" and not given.get("refining.endpoint_model"):
        annotating["refining"]["endpoint_model"] = None
    own = {name: value for name, value in annotating["templates"].items() if value is not None}
    annotating["templates"] = own_wordings(own, starter=on_starter(project, default_base_model))
    return {name: value for name, value in state.items() if value != before[name]}
