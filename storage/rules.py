"""Rules: what recurring critiques ask for, as a named instruction with a scope that operators edit.

A rule that is on enters the system prompt of every completion in its scope at once (`storage.rule_scope`), and training
makes the model follow it without being told (`storage.rule_rows`). Each training begins at the base model, so a rule
that a version has learned must go on training: `learned` takes it out of the system prompt and keeps it there; `off`
takes it out of both. What a rule says is never overwritten: a change of words or scope is a new revision.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from storage import audit
from storage.configs import parse
from storage.enums import RuleState
from storage.errors import Conflict, Invalid, NotFound
from storage.judged import live_annotation
from storage.models import (
    Annotation,
    Completion,
    Critique,
    JsonObject,
    Project,
    Rule,
    RuleCritique,
    RuleRevision,
    User,
    utc_now,
)
from storage.prompts import storable
from storage.rule_scope import RuleScope

LONGEST_NAME, LONGEST_INSTRUCTION = 120, 4000
MOST_RULES = 50  # that may be on or learned: all of them may meet in one system prompt
ERASED_INSTRUCTION = "[erased]"
_QUOTED = 40  # characters of a critique by which its words are known again
_EDITABLE = ("name", "instruction", "phrases", "sources", "position")
_ACTIONS = {
    RuleState.ON: "rule.on",
    RuleState.LEARNED: "rule.learned",
    RuleState.OFF: "rule.off",
    RuleState.DISMISSED: "rule.dismiss",
}


class Origin(NamedTuple):
    """The critiques that a rule came from, as they stand now."""

    gathered: int = 0  # all there ever were
    live: tuple[int, ...] = ()  # ids of those that still stand, also in a revision with the same words
    people: int = 0  # who wrote these
    prompts: int = 0

    @property
    def gone(self) -> int:
        """How many were taken back, reworded or erased since."""
        return self.gathered - len(self.live)


class Said(NamedTuple):
    """A critique behind a rule, for people to read."""

    id: int
    text: str
    fix: str | None
    tags: list[str]


def list_rules(session: Session, project: Project, states: Sequence[RuleState] = tuple(RuleState)) -> list[Rule]:
    """The project's rules in the order in which they enter the system prompt; suggestions behind them."""
    rules = session.scalars(select(Rule).where(Rule.project_id == project.id, Rule.state.in_(states)))
    rank = {state: at for at, state in enumerate((RuleState.ON, RuleState.LEARNED, RuleState.OFF, RuleState.SUGGESTED))}
    return sorted(rules, key=lambda rule: (rank.get(rule.state, len(rank)), rule.position, rule.id))


def get_rule(session: Session, project: Project, rule_id: int, *, lock: bool = False) -> Rule:
    """A rule of the project; raises `NotFound`."""
    query = select(Rule).where(Rule.id == rule_id, Rule.project_id == project.id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    rule = session.scalar(query)
    if rule is None:
        raise NotFound(f"project '{project.name}' has no rule {rule_id}; see its list of rules")
    return rule


def add_rule(
    session: Session, project: Project, values: Mapping[str, Any], user: User | None, *, by: str | None = None
) -> Rule:
    """A rule in an operator's own words, off until somebody turns it on; `values` as in `edit_rule`."""
    _known(values)
    rule = _add(
        session,
        project,
        _name(values.get("name", "")),
        _instruction(values.get("instruction", "")),
        _scope(values, {}),
        state=RuleState.OFF,
        user=user,
    )
    audit.record(session, user, "rule.create", f"rule {rule.id}", project, name=rule.name, **_via(by))
    return rule


def add_suggestion(
    session: Session, project: Project, name: str, instruction: str, scope: RuleScope, critique_id: int
) -> Rule:
    """A rule that the application words; it does nothing until an operator turns it on. It quotes `critique_id`."""
    rule = _add(
        session, project, _name(name), instruction, scope, state=RuleState.SUGGESTED, user=None, quotes=critique_id
    )
    audit.record(session, None, "rule.suggest", f"rule {rule.id}", project)
    return rule


def _add(
    session: Session,
    project: Project,
    name: str,
    instruction: str,
    scope: RuleScope,
    *,
    state: RuleState,
    user: User | None,
    quotes: int | None = None,
) -> Rule:
    last = session.scalar(select(func.max(Rule.position)).where(Rule.project_id == project.id))
    rule = Rule(
        project_id=project.id,
        name=name,
        state=state,
        position=(last or 0) + 1,
        created_by_id=user.id if user else None,
    )
    session.add(rule)
    session.flush()
    _revise(session, rule, 1, instruction, scope.model_dump(mode="json"), user, quotes)
    return rule


def _revise(
    session: Session,
    rule: Rule,
    number: int,
    instruction: str,
    scope: JsonObject,
    user: User | None,
    quotes: int | None,
) -> None:
    session.add(
        RuleRevision(
            rule_id=rule.id,
            number=number,
            instruction=instruction,
            scope=scope,
            critique_id=quotes,
            user_id=user.id if user else None,
        )
    )
    session.flush()
    session.refresh(rule, ["revisions"])


def edit_rule(
    session: Session, rule: Rule, values: Mapping[str, Any], user: User | None, *, by: str | None = None
) -> Rule:
    """Change a rule's name, instruction, phrases, sources or position; what is not named stays as it is.

    Other words or another scope are a new revision, under which everything is written from now on. Raises `Invalid`.
    """
    _known(values)
    project = session.get_one(Project, rule.project_id)
    rule = get_rule(session, project, rule.id, lock=True)
    current = rule.current
    instruction = _instruction(values.get("instruction", current.instruction))
    scope = _scope(values, current.scope).model_dump(mode="json")
    changed: list[str] = []
    if "name" in values and _name(values["name"]) != rule.name:
        rule.name = _name(values["name"])
        changed.append("name")
    if values.get("position") is not None and values["position"] != rule.position:
        rule.position = _position(values["position"])
        changed.append("position")
    if (instruction, scope) != (current.instruction, current.scope):
        quotes = _still_quoted(session, current.critique_id, instruction)
        _revise(session, rule, current.number + 1, instruction, scope, user, quotes)
        changed += [name for name, same in (("instruction", instruction == current.instruction),
                                            ("scope", scope == current.scope)) if not same]  # fmt: skip
    if changed:
        rule.changed_at = utc_now()
        number = rule.current.number
        told = {"changed": changed, "revision": number, **_via(by)}
        audit.record(session, user, "rule.edit", f"rule {rule.id}", project, **told)
    session.flush()
    return rule


def _still_quoted(session: Session, critique_id: int | None, instruction: str) -> int | None:
    """The critique, if the instruction still holds its words: they go when the person who wrote them is erased."""
    critique = session.get(Critique, critique_id) if critique_id is not None else None
    if critique is None:
        return None
    words = " ".join(instruction.split())
    quoted = (" ".join(text.split())[:_QUOTED] for text in (critique.text, critique.fix) if text and text.strip())
    return critique.id if any(text in words for text in quoted) else None


def set_state(session: Session, rule: Rule, state: RuleState, user: User | None, *, by: str | None = None) -> Rule:
    """Turn a rule on, off, to learned, or dismiss it; the state it is in already is left alone.

    Raises `Conflict` when too many rules are on, `Invalid` for a rule whose words were erased.
    """
    project = session.get_one(Project, rule.project_id)
    rule = get_rule(session, project, rule.id, lock=True)
    if rule.state is state:
        return rule
    if state not in _ACTIONS:
        raise Invalid("a rule can be on, learned, off or dismissed")
    if state in (RuleState.ON, RuleState.LEARNED):
        if rule.current.instruction == ERASED_INSTRUCTION:
            raise Invalid("the words of this rule were erased with the person who wrote them; write it anew first")
        others = len(list_rules(session, project, (RuleState.ON, RuleState.LEARNED)))
        if rule.state not in (RuleState.ON, RuleState.LEARNED) and others >= MOST_RULES:
            raise Conflict(f"{others} rules are in force, which is the most there may be; turn one off first")
    before, rule.state, rule.changed_at = rule.state, state, utc_now()
    session.flush()
    told = {"before": before.value, "revision": rule.current.number, **_via(by)}
    audit.record(session, user, _ACTIONS[state], f"rule {rule.id}", project, **told)
    return rule


def _via(by: str | None) -> dict[str, str]:
    return {"by": by} if by else {}


def _known(values: Mapping[str, Any]) -> None:
    for unknown in values.keys() - set(_EDITABLE):
        raise Invalid(f"unknown setting '{unknown}'; choose from: {', '.join(_EDITABLE)}")


def _name(value: Any) -> str:
    name = " ".join(storable(str(value or "")).split())
    if not name:
        raise Invalid("a rule needs a name; say in a few words what it is about")
    if len(name) > LONGEST_NAME:
        raise Invalid(f"the name has {len(name)} characters; at most {LONGEST_NAME}")
    return name


def _instruction(value: Any) -> str:
    told = storable(str(value or "")).strip()
    if not told:
        raise Invalid("a rule needs an instruction; write what the model should do")
    if len(told) > LONGEST_INSTRUCTION:
        raise Invalid(f"the instruction has {len(told):,} characters; at most {LONGEST_INSTRUCTION:,}: shorten it")
    return told


def _scope(values: Mapping[str, Any], before: Mapping[str, Any]) -> RuleScope:
    return parse(RuleScope, {**before, **{key: values[key] for key in ("phrases", "sources") if key in values}})


def _position(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10_000:
        raise Invalid("position: give a whole number from 0 to 10000; rules enter the system prompt in this order")
    return value


# --- where they come from ---


def tie_critiques(session: Session, rule: Rule, critique_ids: Iterable[int]) -> int:
    """Note that a rule comes from these critiques too; returns how many are new to it."""
    have = set(session.scalars(select(RuleCritique.critique_id).where(RuleCritique.rule_id == rule.id)))
    fresh = sorted(set(critique_ids) - have)
    session.add_all(RuleCritique(rule_id=rule.id, critique_id=one) for one in fresh)
    rule.gathered += len(fresh)
    session.flush()
    return len(fresh)


def origins(session: Session, project: Project) -> dict[int, Origin]:
    """How the critiques behind each rule of the project stand, by the rule's id."""
    old = aliased(Critique)
    rows = session.execute(
        select(RuleCritique.rule_id, old.id, Annotation.user_id, Completion.prompt_id)
        .join(Rule, Rule.id == RuleCritique.rule_id)
        .join(old, old.id == RuleCritique.critique_id)
        .join(Critique, (Critique.completion_id == old.completion_id) & (Critique.text == old.text))
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .join(Completion, Completion.id == old.completion_id)
        .where(Rule.project_id == project.id, live_annotation())
    )
    live: dict[int, set[int]] = defaultdict(set)
    people: dict[int, set[int]] = defaultdict(set)
    prompts: dict[int, set[int]] = defaultdict(set)
    for rule_id, critique_id, user_id, prompt_id in rows:
        live[rule_id].add(critique_id)
        people[rule_id].add(user_id)
        prompts[rule_id].add(prompt_id)
    gathered = session.execute(select(Rule.id, Rule.gathered).where(Rule.project_id == project.id))
    return {
        rule_id: Origin(n, tuple(sorted(live[rule_id])), len(people[rule_id]), len(prompts[rule_id]))
        for rule_id, n in gathered
    }


def critiques_behind(session: Session, origin: Origin, limit: int = 10) -> list[Said]:
    """What the critiques that still stand behind a rule say, the oldest first."""
    query = select(Critique.id, Critique.text, Critique.fix, Critique.tags).where(Critique.id.in_(origin.live[:limit]))
    return [Said(*row) for row in session.execute(query.order_by(Critique.id))]


def forget_words(session: Session, critique_ids: Sequence[int]) -> None:
    """Blank what rules quote of critiques that are about to be erased; a rule that says so now is turned off."""
    quoting = update(RuleRevision).where(RuleRevision.critique_id.in_(critique_ids))
    session.execute(quoting.values(instruction=ERASED_INSTRUCTION).execution_options(synchronize_session=False))
    session.expire_all()
    in_force = select(Rule).where(Rule.state.in_((RuleState.ON, RuleState.LEARNED, RuleState.SUGGESTED)))
    for rule in session.scalars(in_force):
        if rule.current.instruction == ERASED_INSTRUCTION:
            rule.state, rule.changed_at = RuleState.OFF, utc_now()
            project = session.get_one(Project, rule.project_id)
            audit.record(session, None, "rule.off", f"rule {rule.id}", project, reason="its words were erased")
    session.flush()
