"""Gold items on the operate page: what is right, who practises, who is checked, who is paused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import text, whole
from storage import accounts, audit, gold, members, projects, standings
from storage.configs import AnnotationSettings, parse
from storage.errors import Invalid
from storage.gold import GoldLine
from storage.history import Filter, Line, list_mine
from storage.models import Criterion, Project, User
from storage.standings import PersonLine

OFFERED = 30  # of one's own newest annotations, to be made what is right
DECISIONS = {"waive": standings.waive, "reset": standings.reset, "lift": standings.lift}
_PERCENT = ("practice_pass", "check_mark")
_WHOLE = ("practice_items", "check_every")
_SWITCHES = ("practice_existing", "check_pause", "show_agreement")


@dataclass(frozen=True)
class GoldView:
    """The gold items of a project, how people do on them, and what may become one."""

    project: str | None
    settings: AnnotationSettings = AnnotationSettings()  # noqa: RUF009  frozen
    criteria: tuple[Criterion, ...] = ()
    lines: tuple[GoldLine, ...] = ()
    people: tuple[PersonLine, ...] = ()
    own: tuple[Line, ...] = ()  # the operator's newest annotations here


def see_gold(ctx: Context, name: str | None, project: str | None) -> GoldView:
    """The gold items of `project`; empty when it is not there for this person."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        return _view(session, user, members.find_project(session, user, project) if project else None)


def save_settings(ctx: Context, name: str | None, project: str | None, values: Mapping[str, Any]) -> GoldView:
    """Change what a project asks for in practice and checks; shares are given in percent. Raises `Invalid`."""
    with ctx.writing(name, policies.manage_gold) as (session, user):
        found = members.get_project(session, user, project or "")
        fields: dict[str, Any] = {key: whole(values.get(key), key.replace("_", " ")) for key in _WHOLE}
        fields |= {key: whole(values.get(key), key.replace("_", " ")) / 100 for key in _PERCENT}
        fields |= {key: values.get(key) is True for key in _SWITCHES}
        projects.update_project(session, found, annotation_settings=fields)
        audit.record(session, user, "project.update", found.name, found, annotation_settings=fields)
        return _view(session, user, found)


def mark(
    ctx: Context, name: str | None, project: str | None, annotation: Any, item: Any, values: Mapping[str, Any]
) -> GoldView:
    """Take an annotation as the gold standard: the one chosen, or the one on `item`.

    Raises `Invalid` when neither is named or several people judged the item, `NotFound` when it is not there.
    """
    with ctx.writing(name, policies.manage_gold) as (session, user):
        found = members.get_project(session, user, project or "")
        if annotation not in (None, ""):
            said = gold.find_annotation(session, found, _number(annotation, "annotation"))
        elif item not in (None, ""):
            said = gold.annotation_on(session, found, _number(item, "item"))
        else:
            raise Invalid("choose an annotation, or give the number of an item")
        standard = gold.standard_from(
            gold.said_in(said),
            tolerance=whole(values.get("tolerance"), "tolerance"),
            tie_allowed=values.get("tie_allowed") is True,
            explanation=text(values.get("explanation"), "explanation", gold.MAX_EXPLANATION),
        )
        gold.mark(session, gold.find_item(session, found, said.item_id), standard, user, annotation=said.id)
        return _view(session, user, found)


def unmark(ctx: Context, name: str | None, project: str | None, item: Any) -> GoldView:
    """Make a gold item an ordinary one again."""
    with ctx.writing(name, policies.manage_gold) as (session, user):
        found = members.get_project(session, user, project or "")
        gold.unmark(session, gold.find_item(session, found, _number(item, "item")), user)
        return _view(session, user, found)


def decide(ctx: Context, name: str | None, project: str | None, person: Any, decision: str) -> GoldView:
    """Waive a person's practice, have them practise from the beginning, or lift their pause."""
    with ctx.writing(name, policies.manage_gold) as (session, user):
        found = members.get_project(session, user, project or "")
        target = accounts.get_user(session, text(person, "person", 200) or _missing("person"))
        DECISIONS[decision](session, found, target, user)
        return _view(session, user, found)


def _missing(what: str) -> str:
    raise Invalid(f"choose a {what} first")


def _number(given: Any, what: str) -> int:
    number = whole(given, what)
    if not 0 < number < 2**31:
        _missing(what)
    return number


def _view(session: Session, user: User, project: Project | None) -> GoldView:
    if project is None:
        return GoldView(None)
    return GoldView(
        project=project.name,
        settings=parse(AnnotationSettings, project.annotation_settings or {}),
        criteria=tuple(project.criteria),
        lines=tuple(gold.list_gold(session, project)),
        people=tuple(standings.list_standings(session, project)),
        own=tuple(list_mine(session, user, Filter(project=project), limit=OFFERED).lines),
    )
