"""Rules on the operate page: suggestions from critiques, what is on, where it holds, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import number, text, to_enum, whole
from storage import members, rules, suggestions
from storage.configs import parse
from storage.enums import RuleState
from storage.errors import Invalid
from storage.models import Project, Rule
from storage.rule_figures import RuleFigures, figures
from storage.rule_rows import rules_to_write
from storage.rule_scope import Fitting, RuleScope, fitting
from storage.rules import Origin, Said
from storage.suggestions import SuggestSettings
from storage.training import queue_generate

NEW = "new"  # chosen instead of a rule's number: one that is being written
WRITE_PROMPTS = 200  # prompts in scope that a run writes for training, at most


@dataclass(frozen=True)
class RulesView:
    """A project's rules; of the one that is chosen, all there is to know."""

    project: str | None
    rules: tuple[Rule, ...] = ()
    origins: dict[int, Origin] | None = None
    figures: dict[int, RuleFigures] | None = None
    chosen: Rule | None = None
    critiques: tuple[Said, ...] = ()  # behind the chosen one
    to_write: int = 0  # rules in training for which nothing was written since they changed

    def origin(self, rule: Rule) -> Origin:
        """The critiques behind a rule."""
        return (self.origins or {}).get(rule.id, Origin())

    def figures_of(self, rule: Rule) -> RuleFigures:
        """What came of a rule."""
        return (self.figures or {}).get(rule.id, RuleFigures())


def see_rules(ctx: Context, name: str | None, project: str | None, chosen: Any = None) -> RulesView:
    """The rules of `project`, and the one that is `chosen` by its number."""
    with ctx.reading(name, policies.manage_rules) as (session, user):
        known = members.list_projects(session, user)
        found = next((one for one in known if one.name == project), None)
        return _view(session, found, chosen) if found else RulesView(None)


def save(ctx: Context, name: str | None, project: str | None, chosen: Any, values: dict[str, Any]) -> RulesView:
    """Write a new rule, or change the chosen one; `values` are the form's fields, phrases and sources one a line."""
    with ctx.writing(name, policies.manage_rules) as (session, user):
        found = members.get_project(session, user, project or "")
        given: dict[str, Any] = {
            "name": text(values.get("name"), "name", 1000),
            "instruction": text(values.get("instruction"), "instruction"),
            **{key: _lines(values.get(key), key) for key in ("phrases", "sources")},
        }
        if chosen in (None, "", NEW):
            rule = rules.add_rule(session, found, given, user)
        else:
            given["position"] = whole(values.get("position"), "position")
            rule = rules.edit_rule(session, _rule(session, found, chosen), given, user)
        return _view(session, found, rule.id)


def switch(ctx: Context, name: str | None, project: str | None, chosen: Any, state: Any) -> RulesView:
    """Turn the chosen rule on, off, to learned, or dismiss it."""
    with ctx.writing(name, policies.manage_rules) as (session, user):
        wanted = to_enum(RuleState, state, "state")
        found = members.get_project(session, user, project or "")
        rule = rules.set_state(session, _rule(session, found, chosen), wanted, user)
        return _view(session, found, rule.id)


def suggest(ctx: Context, name: str | None, project: str | None, at_least: Any) -> tuple[RulesView, int, int]:
    """Look for recurring critiques; returns the view, how many are new, of how many critiques."""
    # First without the right to write, which one has at a time: looking takes seconds.
    with ctx.reading(name, policies.manage_rules) as (session, user):
        wanted = parse(SuggestSettings, {"at_least": whole(at_least, "critiques at least")})
        proposals = suggestions.propose(session, members.get_project(session, user, project or ""), wanted)
    with ctx.writing(name, policies.manage_rules) as (session, user):
        found = members.get_project(session, user, project or "")
        made = suggestions.enter(session, found, proposals, wanted)
        chosen = made.new[0].id if made.new else None
        return _view(session, found, chosen), len(made.new), proposals.critiques


def try_scope(ctx: Context, name: str | None, project: str | None, phrases: Any, sources: Any) -> Fitting:
    """How many prompts a scope fits, before it is saved."""
    with ctx.reading(name, policies.manage_rules) as (session, user):
        scope = parse(RuleScope, {"phrases": _lines(phrases, "phrases"), "sources": _lines(sources, "sources")})
        return fitting(session, members.get_project(session, user, project or ""), scope)


def write(ctx: Context, name: str | None, project: str | None) -> int:
    """Queue the run that writes what rules are trained on; returns its number."""
    with ctx.writing(name, policies.manage_rules) as (session, user):
        policies.train(user)
        found = members.get_project(session, user, project or "")
        values = {"for_rules": True, "prompts": WRITE_PROMPTS}
        run = queue_generate(session, found, values, default_base_model=ctx.settings.base_model, user=user)
        return run.id


def _lines(value: Any, what: str) -> list[str]:
    return [line.strip() for line in text(value, what).splitlines() if line.strip()]


def _rule(session: Session, project: Project, chosen: Any) -> Rule:
    if chosen in (None, "", NEW):
        raise Invalid("choose a rule first")
    return rules.get_rule(session, project, whole(chosen, "rule"))


def _view(session: Session, project: Project, chosen: Any) -> RulesView:
    listed = rules.list_rules(session, project)
    found = number(chosen, "rule") if chosen not in (None, "", NEW) else None
    rule = next((one for one in listed if one.id == found), None)
    known = rules.origins(session, project)
    behind = rules.critiques_behind(session, known[rule.id]) if rule else []
    return RulesView(
        project.name,
        tuple(listed),
        known,
        figures(session, project),
        rule,
        tuple(behind),
        len(rules_to_write(session, project)),
    )
