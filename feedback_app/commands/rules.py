"""`feedback-app rules`: what recurring critiques ask for, in the system prompt and in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

if TYPE_CHECKING:
    from storage.enums import RuleState
    from storage.models import Rule
    from storage.rule_figures import RuleFigures
    from storage.rules import Origin

app = typer.Typer(help="Rules from recurring critiques: suggest, edit, turn on and off.", no_args_is_help=True)
Number = Annotated[int, typer.Argument(metavar="RULE", help="The rule's number.")]
Name = Annotated[str | None, typer.Option("--name", help="What the rule is about, in a few words.")]
Instruction = Annotated[str | None, typer.Option("--instruction", help="What enters the system prompt.")]
Phrases = Annotated[
    list[str] | None,
    typer.Option("--phrase", help="In scope: prompts with one of these (repeat it); '' alone: none is asked for."),
]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", help="In scope: prompts from one of these sources (repeat it); '' alone: from any."),
]
BY = "command line"


@app.command(name="list")
def list_(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """The project's rules and suggestions, and what came of them."""
    from storage.engine import read_only
    from storage.rule_figures import RuleFigures, figures
    from storage.rules import list_rules, origins

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        known, numbers = origins(session, found), figures(session, found)
        rows = [_told(rule, known[rule.id], numbers.get(rule.id, RuleFigures())) for rule in list_rules(session, found)]
    shown = [
        (row["rule"], row["state"], row["name"], row["revision"], row["critiques"], row["people"], row["written"])
        for row in rows
    ]
    columns = ("rule", "state", "name", "revision", "critiques", "people", "completions under it")
    emit({"rules": rows}, as_json, table(columns, shown))


def _told(rule: Rule, origin: Origin, numbers: RuleFigures) -> dict[str, Any]:
    return {
        "rule": rule.id,
        "name": rule.name,
        "state": rule.state,
        "position": rule.position,
        "revision": rule.current.number,
        "instruction": rule.current.instruction,
        "scope": rule.current.scope,
        "critiques": len(origin.live),
        "critiques_gone": origin.gone,
        "people": origin.people,
        "prompts": origin.prompts,
        "written": numbers.written,
        "criticised_before": {"criticised": numbers.before.hits, "of": numbers.before.total},
        "criticised_under": {"criticised": numbers.under.hits, "of": numbers.under.total},
        "learned_by": [one._asdict() for one in numbers.versions],
    }


@app.command()
def show(rule: Number, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """One rule: its words, the prompts in its scope, the critiques behind it, its revisions."""
    from storage.configs import parse
    from storage.engine import read_only
    from storage.rule_figures import RuleFigures, figures
    from storage.rule_scope import RuleScope, fitting
    from storage.rules import critiques_behind, get_rule, origins

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        one = get_rule(session, found, rule)
        origin = origins(session, found)[one.id]
        fits = fitting(session, found, parse(RuleScope, one.current.scope))
        said = critiques_behind(session, origin)
        payload = _told(one, origin, figures(session, found).get(one.id, RuleFigures())) | {
            "matches": fits._asdict(),
            "said": [critique._asdict() for critique in said],
            "revisions": [
                {"revision": old.number, "at": old.created_at, "instruction": old.instruction, "scope": old.scope}
                for old in one.revisions
            ],
        }
    facts = [(name, payload[name]) for name in ("rule", "name", "state", "revision", "instruction", "scope", "written")]
    facts.append(("critiques", f"{payload['critiques']} by {origin.people} people; {origin.gone} taken back or erased"))
    facts.append(("matches", f"{fits.matched} of {fits.prompts} prompts"))
    facts += [("", f"e.g. {example[:100]}") for example in fits.examples]
    quotes = table(("critique", "says", "fix"), [(one.id, one.text[:200], one.fix) for one in said])
    emit(payload, as_json, table(("", ""), facts), quotes)


@app.command()
def suggest(
    project: OptionalProject = None,
    at_least: Annotated[int, typer.Option("--at-least", help="Critiques, on as many different prompts.")] = 5,
    alike: Annotated[
        float | None, typer.Option("--alike", help="How like one another critiques must be, 0.1 to 0.95.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look for what critiques say again and again; suggestions do nothing until one is turned on."""
    from storage.configs import parse
    from storage.engine import read_only
    from storage.rules import origins
    from storage.suggestions import SuggestSettings, enter, propose

    wanted = parse(SuggestSettings, {"at_least": at_least} | ({} if alike is None else {"alike": alike}))
    with open_store() as store:
        with read_only(store.sessions) as session:  # looking takes seconds, in which others may write
            proposals = propose(session, pick_project(session, project), wanted)
        with store.sessions.begin() as session:
            found = pick_project(session, project)
            made = enter(session, found, proposals, wanted)
            known = origins(session, found)
            rows = [(one.id, one.name, len(known[one.id].live), one.current.instruction) for one in made.new]
            grown = [one.id for one in made.grown]
    line = (
        f"{len(rows)} new suggestions from {proposals.critiques} critiques; {len(grown)} rules have more critiques now"
    )
    names = ("rule", "name", "critiques", "instruction")
    payload = {
        "new": [dict(zip(names, row, strict=True)) for row in rows],
        "grown": grown,
        "critiques": proposals.critiques,
    }
    emit(payload, as_json, line, table(names, rows))


@app.command()
def add(
    name: Annotated[str, typer.Option("--name", help="What the rule is about, in a few words.")],
    instruction: Annotated[str, typer.Option("--instruction", help="What enters the system prompt.")],
    phrase: Phrases = None,
    source: Sources = None,
    project: OptionalProject = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a rule of your own; it is off until you turn it on."""
    from storage.rules import add_rule

    with open_store() as store, store.sessions.begin() as session:
        values = {"name": name, "instruction": instruction, "phrases": phrase or [], "sources": source or []}
        made = add_rule(session, pick_project(session, project), values, None, by=BY)
        number = made.id
    emit({"rule": number, "state": "off"}, as_json, f"rule {number} is written; turn it on with: rules on {number}")


@app.command()
def edit(
    rule: Number,
    name: Name = None,
    instruction: Instruction = None,
    phrase: Phrases = None,
    source: Sources = None,
    position: Annotated[int | None, typer.Option("--position", help="Its place among the rules, from 0.")] = None,
    project: OptionalProject = None,
    as_json: JsonFlag = False,
) -> None:
    """Change a rule's name, words, scope or place; other words or another scope are a new revision."""
    from storage.errors import Invalid
    from storage.rules import edit_rule, get_rule

    given = {"name": name, "instruction": instruction, "phrases": phrase, "sources": source, "position": position}
    values = {key: value for key, value in given.items() if value is not None}
    if not values:
        raise Invalid("say what to change: --name, --instruction, --phrase, --source or --position")
    with open_store() as store, store.sessions.begin() as session:
        changed = edit_rule(session, get_rule(session, pick_project(session, project), rule), values, None, by=BY)
        revision = changed.current.number
    emit({"rule": rule, "revision": revision}, as_json, f"rule {rule} is saved, revision {revision}")


@app.command()
def on(rule: Number, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Put a rule into the system prompt of everything in its scope, from now on, and into training."""
    from storage.enums import RuleState

    _switch(rule, RuleState.ON, project, as_json, "is in the system prompt from now on, and in training")


@app.command()
def learned(rule: Number, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Take a rule out of the system prompt but keep it in training, once the champion has learned it."""
    from storage.enums import RuleState

    _switch(rule, RuleState.LEARNED, project, as_json, "is no longer in the system prompt, and goes on training")


@app.command()
def off(rule: Number, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Take a rule out of the system prompt and out of training."""
    from storage.enums import RuleState

    _switch(rule, RuleState.OFF, project, as_json, "is off")


@app.command()
def dismiss(rule: Number, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Drop a rule or suggestion; its critiques are not suggested again."""
    from storage.enums import RuleState

    _switch(rule, RuleState.DISMISSED, project, as_json, "is dismissed; its critiques are not suggested again")


@app.command()
def write(
    project: OptionalProject = None,
    prompts: Annotated[int, typer.Option("--prompts", help="Prompts in scope, at most.")] = 200,
    as_json: JsonFlag = False,
) -> None:
    """Queue the run that writes what rules are trained on: with and without them, and anchors out of their scope."""
    from storage.training import queue_generate

    with open_store() as store, store.sessions.begin() as session:
        values = {"for_rules": True, "prompts": prompts}
        base = store.settings.base_model
        run = queue_generate(session, pick_project(session, project), values, default_base_model=base)
        number = run.id
    emit({"run": number}, as_json, f"run {number} is queued; train with dpo when it has ended")


def _switch(number: int, state: RuleState, project: str | None, as_json: bool, told: str) -> None:
    from storage.rules import get_rule, set_state

    with open_store() as store, store.sessions.begin() as session:
        rule = get_rule(session, pick_project(session, project), number)
        set_state(session, rule, state, None, by=BY)
        name = rule.name
    emit({"rule": number, "state": state}, as_json, f"rule {number} '{name}' {told}")
