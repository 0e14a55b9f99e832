"""Rules: edited, switched, put into the system prompt, suggested from critiques, and what they teach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import annotations, audit, erasure, registry, rules, suggestions
from storage.configs import SnapshotSettings
from storage.enums import ItemKind, RuleState, RunKind, RunStatus, Split
from storage.errors import Conflict, Invalid, NotFound
from storage.models import Completion, Project, Prompt, Rule, RuleCritique, SnapshotRow, SnapshotRowRule, User
from storage.prompts import PLAYGROUND_SOURCE, add_prompt, content_hash, split_of
from storage.rule_figures import figures
from storage.rule_rows import prompts_to_write, rules_to_write
from storage.rule_scope import TRAINED, RuleScope, fitting, matcher, note_rules, rule_book, rules_behind
from storage.runs import claim_run, finish_run
from storage.snapshot_diff import difference
from storage.snapshots import build_snapshot, snapshot_paths
from storage.training import queue_generate
from tests import factories

ASK = [{"role": "user", "content": "When does my parcel arrive?"}]


def make_rule(session: Session, project: Project, state: RuleState = RuleState.ON, **values: Any) -> Rule:
    values = {"name": "dates", "instruction": "Always give a date."} | values
    return rules.set_state(session, rules.add_rule(session, project, values, None), state, None)


def criticise(
    session: Session, project: Project, user: User, said: str, *, prompt: str | None = None, **fields: Any
) -> int:
    """A critique on a new prompt's only completion; returns its id."""
    asked = factories.make_prompt(session, project, prompt)
    item = factories.make_item(session, project, prompt=asked, kind=ItemKind.SINGLE)
    lease = factories.make_lease(session, project, user)
    assert lease.item_id == item.id
    critique = annotations.CritiqueInput(lease.completions[0][0], said, **fields)
    made = annotations.submit(session, lease.assignment_id, user, annotations.Submission(critiques=[critique]))
    return made.critiques[0].id


def test_a_rule_is_written_edited_switched_and_each_change_is_audited(session: Session) -> None:
    project, user = factories.make_project(session), factories.make_user(session, "olga")
    rule = rules.add_rule(session, project, {"name": " dates ", "instruction": "Give a date."}, user)
    assert (rule.name, rule.state, rule.current.number) == ("dates", RuleState.OFF, 1)
    rules.edit_rule(session, rule, {"instruction": "Give a day.", "phrases": ["parcel", " parcel", ""]}, user)
    assert (rule.current.number, rule.current.scope) == (2, {"phrases": ["parcel"], "sources": []})
    rules.edit_rule(session, rule, {"name": "days", "instruction": "Give a day."}, user)
    assert (rule.name, rule.current.number) == ("days", 2)
    rules.set_state(session, rule, RuleState.ON, user)
    rules.set_state(session, rule, RuleState.ON, user)
    told = [(event.action, event.user_id) for event in audit.list_events(session, project)]
    assert told == [(one, user.id) for one in ("rule.on", "rule.edit", "rule.edit", "rule.create")]
    for values, line in (
        ({"name": " "}, "needs a name"),
        ({"instruction": ""}, "needs an instruction"),
        ({"instruction": "x" * 5000}, "5,000 characters"),
        ({"phrases": ["x" * 201]}, "at most 50"),
        ({"position": -1}, "position"),
        ({"text": "x"}, "unknown setting 'text'"),
    ):
        with pytest.raises(Invalid, match=line):
            rules.edit_rule(session, rule, values, user)
    with pytest.raises(NotFound):
        rules.get_rule(session, factories.make_project(session), rule.id)
    for _ in range(rules.MOST_RULES - 1):
        make_rule(session, project)
    with pytest.raises(Conflict, match="50 rules are in force"):
        make_rule(session, project)


@pytest.mark.parametrize(
    ("scope", "text", "source", "fits"),
    [
        ({}, "anything", "", True),
        ({"phrases": ["parcel"]}, "My PARCEL is late", "", True),
        ({"phrases": ["art"]}, "my parcel party", "", False),
        ({"phrases": ["late  parcel"]}, "a late\nparcel", "", True),
        ({"phrases": ["退款", "发货"]}, "我想申请退款，谢谢", "", True),
        ({"phrases": ["退款"]}, "什么时候到货", "", False),
        ({"phrases": ["C++ (new)"]}, "what is C++ (new)?", "", True),
        ({"sources": ["shop"]}, "anything", "shop", True),
        ({"sources": ["shop"], "phrases": ["parcel"]}, "parcel", "mail", False),
    ],
)
def test_a_scope_fits_what_it_says(scope: dict[str, Any], text: str, source: str, fits: bool) -> None:
    messages = [{"role": "assistant", "content": "parcel 退款"}, {"role": "user", "content": text}]
    assert matcher(RuleScope(**scope))(messages, source) is fits


def test_rules_enter_the_system_prompt_in_order_and_the_stored_prompt_stays(session: Session) -> None:
    project = factories.make_project(session)
    make_rule(session, project, instruction="Second.", position=None)
    first = make_rule(session, project, instruction="First.", phrases=["parcel"])
    rules.edit_rule(session, first, {"position": 0}, None)
    for state in (RuleState.OFF, RuleState.LEARNED, RuleState.DISMISSED):
        make_rule(session, project, state, instruction=state.value)
    prompt = add_prompt(session, project, ASK, "test").row
    asked = rule_book(session, project).apply(prompt.messages, prompt.source)
    assert asked.messages == [{"role": "system", "content": "First.\nSecond."}, *ASK]
    assert [one for one, _ in asked.rules] == [first.id, first.id - 1]
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert rule_book(session, project).apply(system, "").messages[0]["content"] == "Be brief.\n\nSecond."
    assert system[0]["content"] == "Be brief."
    session.expire_all()
    assert prompt.messages == ASK
    assert fitting(session, project, RuleScope(phrases=("parcel",))) == (1, 1, [ASK[0]["content"]])
    written = factories.make_completion(session, prompt)
    note_rules(session, written.id, asked.rules)
    rules.edit_rule(session, first, {"instruction": "Changed since."}, None)
    assert [one.instruction for one in rules_behind(session, written.id)] == ["Second.", "First."]


SAID = [
    "There is no date of delivery.", "No delivery date is given.", "The date of delivery is missing.",
    "Give a delivery date.", "No date of delivery again!", "Where is the delivery date?",
]  # fmt: skip
CHINESE = ["语气太生硬，不够礼貌", "不够礼貌，语气生硬", "语气生硬", "不够礼貌", "语气太生硬", "语气太生硬了，不够礼貌"]


def test_recurring_critiques_become_suggestions_that_know_where_they_came_from(session: Session) -> None:
    project = factories.make_project(session)
    ann, ben = factories.make_user(session, "ann"), factories.make_user(session, "ben")
    users = (ann, ben)
    for at, said in enumerate(SAID):
        text = f"When will parcel {at} be here?"
        fix = "Name the day." if at == 1 else None
        criticise(session, project, users[at % 2], said, prompt=text, tags=["vague"], fix=fix)
    for at, said in enumerate(CHINESE):
        criticise(session, project, ann, said, prompt=f"我要退货 {at}")
    for said in ("Nonsense.", "I like it, but the colour is another one.", "x", "y" * 20_000):
        criticise(session, project, ben, said)
    found = suggestions.suggest(session, project)
    assert [rule.state for rule in found.new] == [RuleState.SUGGESTED] * 2
    dates, tone = found.new
    assert dates.name.startswith("vague: ")
    assert "delivery" in dates.name
    assert "Name the day." in dates.current.instruction
    assert dates.current.scope["phrases"] == ["parcel"]
    assert tone.name == "不够礼貌"
    assert tone.current.instruction.startswith("标注者经常批评")
    origin = rules.origins(session, project)[dates.id]
    assert (origin.gathered, len(origin.live), origin.people, origin.prompts, origin.gone) == (6, 6, 2, 6, 0)
    assert {one.text for one in rules.critiques_behind(session, origin)} == set(SAID)
    # The same again gives nothing new; what is dismissed stays dismissed; a rule takes in what is said since.
    rules.set_state(session, tone, RuleState.DISMISSED, ann)
    criticise(session, project, ann, "No date of delivery.", tags=["vague"])
    criticise(session, project, ann, CHINESE[0])
    again = suggestions.suggest(session, project)
    assert (again.new, again.grown) == ([], [dates])
    assert rules.origins(session, project)[dates.id].gathered == 7
    # Too few of distinct prompts are none.
    assert suggestions.suggest(session, factories.make_project(session)).new == []


def test_critiques_taken_back_or_erased_fall_out_and_the_rule_says_so(session: Session) -> None:
    project = factories.make_project(session)
    ann, ben = factories.make_user(session, "ann"), factories.make_user(session, "ben")
    for said in SAID[:3]:
        criticise(session, project, ben, said)
    quoted = criticise(session, project, ann, SAID[3], fix="Ann's own words here.")
    criticise(session, project, ann, SAID[5])
    (rule,) = suggestions.suggest(session, project, suggestions.SuggestSettings(at_least=4)).new
    rules.set_state(session, rule, RuleState.ON, None)
    assert rule.current.critique_id == quoted
    session.get_one(rules.Critique, quoted).annotation.withdrawn_at = factories.utc_now()
    session.flush()
    origin = rules.origins(session, project)[rule.id]
    assert (origin.gathered, len(origin.live), origin.gone, origin.people) == (5, 4, 1, 2)
    # An edit that keeps the words keeps whose they are.
    rules.edit_rule(session, rule, {"instruction": f"{rule.current.instruction} Politely."}, None)
    assert rule.current.critique_id == quoted
    erasure.erase_person(session, ann, None)
    session.refresh(rule)
    assert {one.instruction for one in rule.revisions} == {rules.ERASED_INSTRUCTION}
    assert rule.state is RuleState.OFF
    origin = rules.origins(session, project)[rule.id]
    assert (origin.gathered, len(origin.live), origin.gone) == (5, 3, 2)
    assert len(session.scalars(select(RuleCritique)).all()) == 3
    with pytest.raises(Invalid, match="erased"):
        rules.set_state(session, rule, RuleState.ON, None)


def written(session: Session, prompt: Prompt, text: str, version_id: int, rule: Rule | None = None) -> Completion:
    made = factories.make_completion(session, prompt, text, model_version_id=version_id)
    if rule is not None:
        note_rules(session, made.id, [[rule.id, rule.current.number]])
    return made


def compare(session: Session, project: Project, user: User, wanted: dict[Split, int]) -> None:
    for split, count in wanted.items():
        for _ in range(count):
            factories.make_item(session, project, split=split)
            factories.make_annotation(session, project, user)


def rows_by_source(session: Session, snapshot_id: int) -> dict[str, list[SnapshotRow]]:
    found: dict[str, list[SnapshotRow]] = {}
    for row in session.scalars(select(SnapshotRow).filter_by(snapshot_id=snapshot_id).order_by(SnapshotRow.id)):
        found.setdefault(row.source.value, []).append(row)
    return found


def prompts_in(session: Session, project: Project, texts: Sequence[str], split: Split = Split.TRAIN) -> list[Prompt]:
    found = []
    for text in texts:
        tries = ([{"role": "user", "content": f"{text} {at}"}] for at in range(1000))
        messages = next(one for one in tries if split_of(content_hash(one)) is split)
        found.append(add_prompt(session, project, messages, "test").row)
    return found


def test_a_snapshot_takes_pairs_in_scope_and_anchors_out_of_scope(session: Session, home: Path) -> None:
    project, user = factories.make_project(session), factories.make_user(session)
    base = registry.base_version(session, project, "starter")
    compare(session, project, user, {Split.TRAIN: 4, Split.TEST: 2})
    few = SnapshotSettings(min_train_pairs=4)
    plain = build_snapshot(session, project, few, home)
    rule = make_rule(session, project, phrases=["parcel"])
    assert build_snapshot(session, project, few, home).id == plain.id  # nothing is written under it yet
    inside = prompts_in(session, project, [f"parcel {n}" for n in range(5)])
    outside = prompts_in(session, project, [f"invoice {n}" for n in range(6)])
    held = prompts_in(session, project, ["parcel held out"], Split.TEST)
    for prompt in inside + held:
        written(session, prompt, "It comes on Monday.", base.id, rule)
        written(session, prompt, "It comes.", base.id)
    for prompt in outside:
        written(session, prompt, "Here is the invoice.", base.id)
    # People compared one pair, and criticised what another was written under the rule.
    texts = {one.text: one for one in inside[0].completions}
    factories.items.add_item(session, inside[0], list(texts.values()))
    factories.make_annotation(session, project, user)
    good = next(one for one in inside[1].completions if "Monday" in one.text)
    factories.items.add_item(session, inside[1], [good], ItemKind.SINGLE)
    lease = factories.make_lease(session, project, user)
    said = annotations.CritiqueInput(good.id, "It came on Tuesday.")
    annotations.submit(session, lease.assignment_id, user, annotations.Submission(critiques=[said]))

    snapshot = build_snapshot(session, project, few, home)
    found = rows_by_source(session, snapshot.id)
    assert (len(found["rule"]), len(found["anchor"])) == (3, 3)
    assert {row.prompt_id for row in found["rule"]} == {one.id for one in inside[2:]}
    assert {row.prompt_id for row in found["anchor"]} <= {one.id for one in outside}
    assert all(row.rejected_id is None and row.split is Split.TRAIN for row in found["anchor"])
    assert snapshot.report["rules"] == {str(rule.id): 3}
    assert (snapshot.report["used"]["rule"], snapshot.report["used"]["anchor"]) == (3, 3)
    assert (snapshot.report["left_out"]["judged"], snapshot.report["left_out"]["criticised"]) == (1, 1)
    tied = session.execute(select(SnapshotRowRule.snapshot_row_id, SnapshotRowRule.rule_id)).all()
    assert {tuple(row) for row in tied} == {(row.id, rule.id) for row in found["rule"]}
    rows = pq.read_table(snapshot_paths(snapshot, home)[Split.TRAIN]).to_pylist()
    (taught, *_) = [row for row in rows if row["source"] == "rule"]
    assert taught["rule_ids"] == [rule.id]
    assert [one["role"] for one in taught["prompt"]] == ["user"]  # without the rule
    assert taught["chosen"][0]["content"] == "It comes on Monday."
    assert [row["rejected"] for row in rows if row["source"] == "anchor"] == [[]] * 3
    assert build_snapshot(session, project, few, home).id == snapshot.id
    added = difference(session, plain, snapshot).added
    assert {(one.causes[0].what, one.causes[0].happened) for one in added if one.after.source.value == "rule"} == {
        ("rule", "new")
    }
    # Learned goes on training, other words and off do not, and a reward model takes none of it.
    rules.set_state(session, rule, RuleState.LEARNED, None)
    assert build_snapshot(session, project, few, home).id == snapshot.id
    assert not rule_book(session, project)
    without = build_snapshot(session, project, few.model_copy(update={"use_rules": False}), home)
    assert "rules" not in without.report
    rules.edit_rule(session, rule, {"name": "other name"}, None)
    assert build_snapshot(session, project, few, home).id == snapshot.id
    rules.edit_rule(session, rule, {"instruction": "Name the day."}, None)
    assert build_snapshot(session, project, few, home).id == without.id


def test_refinements_of_its_critiques_know_the_rule(session: Session, home: Path) -> None:
    project, user = factories.make_project(session), factories.make_user(session)
    compare(session, project, user, {Split.TRAIN: 3, Split.TEST: 1})
    item = factories.make_item(session, project, split=Split.TRAIN)
    lease = factories.make_lease(session, project, user)
    made = annotations.submit(
        session,
        lease.assignment_id,
        user,
        annotations.Submission(
            critiques=[annotations.CritiqueInput(lease.completions[0][0], "No date.")],
            refinements=[annotations.RefinementInput(lease.completions[0][0], "On Monday.")],
        ),
    )
    few = SnapshotSettings(min_train_pairs=1)
    plain = build_snapshot(session, project, few, home)
    rule = make_rule(session, project, phrases=["no such words"])
    rules.tie_critiques(session, rule, [made.critiques[0].id])
    assert build_snapshot(session, project, few, home).id == plain.id  # out of scope
    rules.edit_rule(session, rule, {"phrases": []}, None)
    snapshot = build_snapshot(session, project, few, home)
    assert snapshot.report["rules"] == {str(rule.id): 1}
    (row,) = rows_by_source(session, snapshot.id)["refinement"]
    assert row.prompt_id == item.prompt_id
    assert session.scalars(select(SnapshotRowRule.rule_id).filter_by(snapshot_row_id=row.id)).all() == [rule.id]


def test_what_is_left_to_write_for_rules(session: Session) -> None:
    project = factories.make_project(session)
    base = registry.base_version(session, project, "starter")
    rule = make_rule(session, project, RuleState.LEARNED, phrases=["parcel"])
    inside = prompts_in(session, project, [f"parcel {n}" for n in range(3)])
    prompts_in(session, project, ["parcel test"], Split.TEST)
    outside = prompts_in(session, project, [f"invoice {n}" for n in range(3)])
    add_prompt(session, project, [{"role": "user", "content": "parcel of my own"}], PLAYGROUND_SOURCE)
    written(session, inside[0], "Monday.", base.id, rule)
    written(session, inside[0], "Soon.", base.id)
    written(session, outside[0], "Here.", base.id)
    book = rule_book(session, project, TRAINED)
    left = prompts_to_write(session, project, book, 10)
    assert {one.id for one in left.in_scope} == {one.id for one in inside[1:]}
    assert {one.id for one in left.anchors} == {one.id for one in outside[1:]}
    assert len(prompts_to_write(session, project, book, 1).in_scope) == 1
    # A second rule for the same prompts is not in what was written under the first; while it is off, nothing lacks it.
    second = make_rule(session, project, name="tone", instruction="Be kind.")
    book = rule_book(session, project, TRAINED)
    assert inside[0] in prompts_to_write(session, project, book, 10).in_scope
    rules.set_state(session, second, RuleState.OFF, None)
    assert rules_to_write(session, project) == [rule]
    run = queue_generate(session, project, {"for_rules": True}, default_base_model="starter")
    claim_run(session, "w", [RunKind.GENERATE])
    finish_run(session, run.id, "w", RunStatus.SUCCEEDED, result={})
    assert rules_to_write(session, project) == []
    rules.edit_rule(session, rule, {"instruction": "Say when."}, None)
    assert rules_to_write(session, project) == [rule]


def test_figures_say_what_was_written_under_a_rule_and_what_people_said_of_it(session: Session, home: Path) -> None:
    project, user = factories.make_project(session), factories.make_user(session)
    base = registry.base_version(session, project, "starter")
    rule = make_rule(session, project, phrases=["parcel"])
    for at, prompt in enumerate(prompts_in(session, project, [f"parcel {n}" for n in range(4)])):
        one = written(session, prompt, f"Answer {at}", base.id, rule if at < 2 else None)
        factories.items.add_item(session, prompt, [one], ItemKind.SINGLE)
        lease = factories.make_lease(session, project, user)
        said = [annotations.CritiqueInput(one.id, "Bad.")] if at != 0 else []
        rating = annotations.RatingInput(one.id, project.criteria[0].id, 3)
        annotations.submit(session, lease.assignment_id, user, annotations.Submission(ratings=[rating], critiques=said))
    found = figures(session, project)[rule.id]
    assert (found.written, found.before.hits, found.before.total) == (2, 2, 2)
    assert (found.under.hits, found.under.total) == (1, 2)
    assert found.versions == ()
