"""Rules in what models are given: the system prompt of every job, and pairs and anchors that train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage import annotations, playground, registry, rules
from storage.enums import CompletionOrigin, RuleState, RunKind, Split
from storage.errors import NotEnoughData
from storage.models import Completion, Item, Project, Prompt, Rule, Run
from storage.prompts import add_prompt
from storage.rule_figures import figures
from storage.rule_scope import note_rules, rules_behind
from storage.runs import claim_run, get_run, log_lines
from storage.training import queue_generate, queue_refine
from tests import factories
from tests.trainer.conftest import Executor
from tests.trainer.working import judge, queue
from trainer.bridge import enter_completions, lay_out, publish_adapter
from trainer.desk import Desk, take_in
from trainer.place import Place

INSTRUCTION = "Always say when it arrives."


def rule_on(session: Session, project: Project, **values: Any) -> Rule:
    rule = rules.add_rule(session, project, {"name": "dates", "instruction": INSTRUCTION} | values, None)
    return rules.set_state(session, rule, RuleState.ON, None)


def requests(folder: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.requests.read_text("utf-8").splitlines()]


def test_the_starter_writes_under_the_rules_that_hold_and_each_completion_says_which(
    session: Session, home: Path, run: Executor
) -> None:
    project = factories.make_project(session, sampling={"max_new_tokens": 16})
    inside = add_prompt(session, project, [{"role": "user", "content": "When does my parcel arrive?"}], "test").row
    outside = add_prompt(session, project, [{"role": "user", "content": "Please send the invoice."}], "test").row
    rule = rule_on(session, project, phrases=["parcel"])
    asked = queue_generate(session, project, {"prompts": 2, "threads": 1}, default_base_model="starter")
    folder = lay_out(session, asked, Place(home, "starter", "cpu"))
    rows = {row["prompt_id"]: row for row in requests(folder)}
    assert rows[inside.id]["messages"][0] == {"role": "system", "content": INSTRUCTION}
    assert rows[inside.id]["prompt"] == inside.messages
    assert rows[inside.id]["rules"] == [[rule.id, 1]]
    assert rows[outside.id]["messages"] == outside.messages
    assert any("rule 1 'dates', revision 1" in line for line in log_lines(session, asked.id))

    done = run(folder)
    assert done.code == 0
    assert enter_completions(session, asked, folder, done.result)["items"] == 2
    for completion in session.scalars(select(Completion)):
        told = [one.instruction for one in rules_behind(session, completion.id)]
        assert told == ([INSTRUCTION] if completion.prompt_id == inside.id else [])
    assert session.get_one(Prompt, inside.id).messages[0]["role"] == "user"
    assert figures(session, project)[rule.id].written == 2


def test_what_trains_rules_is_written_with_and_without_them(session: Session, home: Path) -> None:
    project = factories.make_project(session)
    place = Place(home, "starter", "cpu")
    inside = factories.make_prompt(session, project, split=Split.TRAIN)
    asked = queue_generate(session, project, {"for_rules": True}, default_base_model="starter")
    with pytest.raises(NotEnoughData, match="no rule is on"):
        lay_out(session, asked, place)
    rule = rule_on(session, project, phrases=[inside.messages[0]["content"]])
    outside = [factories.make_prompt(session, project, split=Split.TRAIN) for _ in range(2)]
    folder = lay_out(session, asked, place)
    rows = [(row["prompt_id"], row.get("rules", []), row["versions"]) for row in requests(folder)]
    assert rows[:2] == [(inside.id, [[rule.id, 1]], ["policy-v0"]), (inside.id, [], ["policy-v0"])]
    assert [(one[1], one[2]) for one in rows[2:]] == [([], ["policy-v0"])]
    assert rows[2][0] in {one.id for one in outside}
    folder.out.mkdir()
    written = [
        {"prompt_id": one, "version": "policy-v0", "text": text, "token_count": 3, "mean_logprob": -0.1,
         "latency_ms": 1.0, "seed": 0, "rules": under, "scores": {}}
        for one, under, text in ((inside.id, [[rule.id, 1]], "On Monday."), (inside.id, [], "Soon."))
    ]  # fmt: skip
    (folder.out / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    assert "items" not in enter_completions(session, asked, folder, {})
    assert session.scalars(select(Item)).all() == []
    rules.set_state(session, rule, RuleState.OFF, None)
    with pytest.raises(NotEnoughData):
        lay_out(session, asked, place)


def test_the_playground_and_refining_get_the_rules_too(sessions: sessionmaker[Session], home: Path) -> None:
    place = Place(home, "starter", "cpu")
    with sessions.begin() as session:
        project, user = factories.make_project(session), factories.make_user(session)
        base = registry.base_version(session, project, "starter")
        factories.make_item(session, project, version=base)
        lease = factories.make_lease(session, project, user)
        said = annotations.CritiqueInput(lease.completions[0][0], "No date.")
        annotations.submit(session, lease.assignment_id, user, annotations.Submission(critiques=[said]))
        rule = rule_on(session, project)
        refining = queue_refine(session, project, {}, default_base_model="starter")
        (row,) = requests(lay_out(session, refining, place))
        assert row["messages"][0] == {"role": "system", "content": INSTRUCTION}
        assert (row["prompt"][0]["role"], row["rules"]) == ("user", [[rule.id, 1]])
        playground.send(session, project, playground.my_conversation(session, project, user), "When is it here?")
        talking = session.scalars(select(Run.id).where(Run.kind == RunKind.PLAYGROUND)).one()
        folder = lay_out(session, get_run(session, talking), place)
        project_id, rule_id = project.id, rule.id
    desk = Desk(sessions, place, folder, talking, project_id)
    desk.tick()
    (request,) = requests(folder)
    assert request["messages"][0] == {"role": "system", "content": INSTRUCTION}
    completions = [
        {"version": "policy-v0", "text": text, "seed": 1, "token_count": 2, "mean_logprob": -1.0, "latency_ms": 1.0}
        for text in ("One.", "Two.")
    ]
    event = {"event": "written", "key": request["key"], "completions": completions, "sampling": {},
             "rules": request["rules"]}  # fmt: skip
    with sessions.begin() as session:
        take_in(session, talking, [event])
        made = session.scalars(select(Completion).where(Completion.text.in_(("One.", "Two.")))).all()
        assert [[one.rule_id for one in rules_behind(session, one.id)] for one in made] == [[rule_id]] * 2
        assert session.get_one(Prompt, made[0].prompt_id).messages[0]["role"] == "user"


def test_a_policy_trains_on_pairs_of_rules_and_anchors(
    sessions: sessionmaker[Session], project_id: int, home: Path, tiny_base: Path, run: Executor
) -> None:
    judge(sessions, project_id)
    place = Place(home, str(tiny_base), "cpu")
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        base = registry.base_version(session, project, str(tiny_base))
        rule = rule_on(session, project, phrases=["parcel"])
        for number in range(12):
            text = f"{'parcel' if number % 2 else 'invoice'} {number}"
            prompt = add_prompt(session, project, [{"role": "user", "content": text}], "test").row
            for said, under in (("thanks, today", [[rule.id, 1]]), ("late", [])):
                if under and number % 2 == 0:
                    continue
                made = factories.make_completion(
                    session, prompt, said, origin=CompletionOrigin.MODEL, model_version_id=base.id
                )
                note_rules(session, made.id, under)
        rule_id = rule.id
    run_id = queue(sessions, project_id, home, RunKind.DPO, max_steps=3, rule_weight=1.0, rule_anchors=1.0)
    with sessions.begin() as session:
        claimed = claim_run(session, "w", [RunKind.DPO])
        assert claimed is not None
        assert claimed.id == run_id
        assert claimed.snapshot is not None
        report = claimed.snapshot.report
        assert report["rules"] == {str(rule_id): report["used"]["rule"]}
        assert report["used"]["anchor"] > 0
        folder = lay_out(session, claimed, place)
    done = run(folder)
    assert done.code == 0
    assert done.result["fit"]["train"]["kept"] == 18 + report["used"]["rule"] + report["used"]["anchor"]
    assert all(value is not None for _, value in done.series("loss"))
    assert all(0 <= value <= 1 for _, value in done.series("accuracy") if value is not None)
    with sessions.begin() as session:
        name = publish_adapter(session, get_run(session, run_id), folder, place, done.result)
        (learned,) = figures(session, session.get_one(Project, project_id))[rule_id].versions
        assert (learned.version, learned.rows, learned.champion) == (name, report["used"]["rule"], False)
