"""Projects: one body of feedback each, with guidelines, criteria, sampling settings and a training policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.accounts import clean_name
from storage.configs import AnnotationSettings, SamplingSettings, TrainingPolicy, parse
from storage.cycle_configs import CycleSettings
from storage.enums import ItemStatus
from storage.errors import Conflict, Invalid, NotFound
from storage.gate_configs import GateSettings
from storage.gold import count_gold
from storage.models import Criterion, Item, Project, Rating
from storage.prompts import storable
from storage.schedule import check_policy
from storage.standings import admit_existing


class CriterionSpec(NamedTuple):
    """A rating scale to be: whole numbers from `low` to `high`."""

    name: str
    description: str = ""
    low: int = 1
    high: int = 5


DEFAULT_CRITERIA = (
    CriterionSpec("quality", "Overall: would you send this as it stands?"),
    CriterionSpec("correctness", "Names, numbers and facts are right, nothing is invented."),
    CriterionSpec("helpfulness", "It does what was asked, and says what happens next."),
    CriterionSpec("tone", "Polite and fitting to the person who asked."),
)

_MOST_TAGS = 50
_LONGEST_TAG = 40
_LIMITS = {"overlap": (1, 100), "queue_target": (0, 100_000), "lease_seconds": (10, 7 * 24 * 3600)}


def create_project(
    session: Session,
    name: str,
    *,
    guidelines: str = "",
    criteria: Sequence[CriterionSpec] = DEFAULT_CRITERIA,
    base_model: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    overlap: int = 1,
    queue_target: int = 20,
    training_policy: Mapping[str, Any] | None = None,
) -> Project:
    """Add a project; `base_model` None means the installation's. Raises `Conflict` when the name is taken."""
    project = Project(name=clean_name(name, "project name"))
    taken = Conflict(f"there is a project '{project.name}' already; choose another name")
    if session.scalar(select(exists().where(Project.name == project.name))):
        raise taken
    try:
        with session.begin_nested():
            session.add(project)
    except IntegrityError as error:
        raise taken from error
    update_project(
        session,
        project,
        guidelines=guidelines,
        criteria=criteria,
        base_model=base_model,
        sampling=sampling or {},
        overlap=overlap,
        queue_target=queue_target,
        training_policy=training_policy or {},
        annotation_settings={},
    )
    return project


def find_project(session: Session, name: str) -> Project | None:
    """The project of that name, or None."""
    return session.scalar(select(Project).where(Project.name == name.strip()))


def get_project(session: Session, name: str) -> Project:
    """The project of that name; raises `NotFound`, naming those that are there."""
    project = find_project(session, name)
    if project is None:
        known = ", ".join(row.name for row in list_projects(session)) or "none yet"
        raise NotFound(f"there is no project '{name}'; projects: {known}")
    return project


def list_projects(session: Session) -> list[Project]:
    """Every project by name."""
    return list(session.scalars(select(Project).order_by(Project.name)))


def update_project(session: Session, project: Project, **fields: Any) -> Project:
    """Change settings of a project: every column of `Project` but its name, and its criteria.

    Values are validated before anything changes (`Invalid` names the key). `annotation_settings`,
    `cycle_settings` and `gate_settings` change by key: what is not named stays; asking for practice needs as many gold
    items, and leaves alone who submitted something before. A lower `overlap` closes the items that have enough
    annotations now; a higher one holds for items that are still open.
    """
    known = {
        "guidelines", "criteria", "base_model", "sampling", "training_policy", "annotation_settings", "tags",
        "cycle_settings", "members_only", "gate_settings", *_LIMITS,
    }  # fmt: skip
    for unknown in fields.keys() - known:
        raise Invalid(f"unknown project setting '{unknown}'; choose from: {', '.join(sorted(known))}")
    for name in ("annotation_settings", "cycle_settings", "gate_settings"):
        if name in fields:
            fields = {**fields, name: {**(getattr(project, name) or {}), **fields[name]}}
    values = {key: _checked(key, value) for key, value in fields.items() if key != "criteria"}
    if "criteria" in fields:
        _set_criteria(session, project, fields["criteria"])
    if "annotation_settings" in values:
        _ask_for_practice(session, project, values["annotation_settings"]["practice_items"])
    for key, value in values.items():
        setattr(project, key, value)
    session.flush()
    if "overlap" in values:
        session.execute(
            update(Item)
            .where(
                Item.project_id == project.id,
                Item.status == ItemStatus.OPEN,
                Item.judged >= func.coalesce(Item.wanted, project.overlap),
            )
            .values(status=ItemStatus.DONE)
        )
    return project


def _ask_for_practice(session: Session, project: Project, wanted: int) -> None:
    """Asking for practice needs gold items, and leaves alone who works here already."""
    before = (project.annotation_settings or {}).get("practice_items", 0)
    if wanted > before and wanted > (there := count_gold(session, project)):
        raise Invalid(f"setting 'practice_items': {wanted} of them need as many gold items; there are {there}")
    if wanted and not before:
        admit_existing(session, project)


def _checked(key: str, value: Any) -> Any:
    if key == "sampling":
        return parse(SamplingSettings, dict(value)).model_dump(mode="json")
    if key == "training_policy":
        policy = parse(TrainingPolicy, dict(value))
        check_policy(policy)
        return policy.model_dump(mode="json")
    if key == "annotation_settings":
        return parse(AnnotationSettings, value).model_dump(mode="json")
    if key == "cycle_settings":
        return parse(CycleSettings, value).model_dump(mode="json")
    if key == "gate_settings":
        return parse(GateSettings, value).model_dump(mode="json")
    if key == "tags":
        return _checked_tags(value)
    if key == "members_only":
        if not isinstance(value, bool):
            raise Invalid(f"setting 'members_only': give true or false (got {value!r})")
        return value
    if key == "base_model":
        return (value or "").strip() or None
    if key == "guidelines":
        return str(value)
    low, high = _LIMITS[key]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Invalid(f"setting '{key}': give a whole number from {low} to {high} (got {value!r})")
    return value


def _checked_tags(tags: Sequence[str]) -> list[str]:
    """The tags in order, without empty ones and without a second one that differs in capitals only."""
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        raise Invalid("setting 'tags': give a list of short texts")
    cleaned = [" ".join(storable(tag).split()) for tag in tags]
    for tag in cleaned:
        if len(tag) > _LONGEST_TAG:
            raise Invalid(f"setting 'tags': '{tag[:20]}…' has {len(tag)} characters; at most {_LONGEST_TAG}")
    kept: dict[str, str] = {}
    for tag in filter(None, cleaned):
        kept.setdefault(tag.casefold(), tag)
    if len(kept) > _MOST_TAGS:
        raise Invalid(f"setting 'tags': {len(kept)} tags are too many to choose from; at most {_MOST_TAGS}")
    return list(kept.values())


def _set_criteria(session: Session, project: Project, specs: Sequence[CriterionSpec]) -> None:
    """Make the criteria equal `specs`, matched by name; what ratings rest on cannot change its scale or go."""
    names = [clean_name(spec.name, "criterion's name") for spec in specs]
    if len(set(names)) < len(names):
        raise Invalid("two criteria have the same name; give each its own")
    for spec in specs:
        if not -1000 <= spec.low < spec.high <= 1000:
            raise Invalid(f"criterion '{spec.name}': the scale must rise, for example from 1 to 5")
    present = {row.name: row for row in project.criteria}
    for name, row in present.items():
        kept = next((spec for spec, wanted in zip(specs, names, strict=True) if wanted == name), None)
        same_scale = kept is not None and (kept.low, kept.high) == (row.low, row.high)
        if not same_scale and session.scalar(select(exists().where(Rating.criterion_id == row.id))):
            raise Conflict(f"criterion '{name}' has ratings: keep it and its scale, and add a new one beside it")
        if kept is None:
            session.delete(row)
    for position, (name, spec) in enumerate(zip(names, specs, strict=True)):
        row = present.get(name) or Criterion(project_id=project.id, name=name)
        row.description, row.low, row.high, row.position = spec.description.strip(), spec.low, spec.high, position
        session.add(row)
    session.flush()
    session.refresh(project, ["criteria"])
