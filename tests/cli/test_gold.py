"""`feedback-app gold`: what is right, and how people do."""

import json
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage.models import Item
from tests import factories
from tests.cli.conftest import Cli
from tests.storage import golden


def test_gold_items_are_taken_from_annotations_listed_and_removed(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        project = factories.make_project(session, "shop", overlap=2)
        ann, bob = factories.make_user(session, "ann"), factories.make_user(session, "bob")
        factories.make_item(session, project)
        first = factories.make_annotation(session, project, ann)
        factories.make_annotation(session, project, bob)
    item = first.item_id
    assert "say which annotation" in cli("gold", "add").error
    assert "several annotations" in cli("gold", "add", "--item", item).error
    added = cli("gold", "add", "--item", item, "--by", "ann", "--tie-ok", "--explanation", "The *date*.", "--json").json
    assert (added["item"], added["annotation"]) == (item, first.id)
    (line,) = cli("gold", "list", "--json").json["gold"]
    assert (line["gold"]["comparison"]["tie_allowed"], line["gold"]["explanation"]) == (True, "The *date*.")
    assert line["answers"] == 0
    assert cli("gold", "remove", item).code == 0
    assert cli("gold", "list", "--json").json["gold"] == []
    assert "no gold item" in cli("gold", "remove", item).error


def test_gold_items_come_in_from_a_file_whole_or_not_at_all(
    cli: Cli, store: sessionmaker[Session], tmp_path: Path
) -> None:
    with store.begin() as session:
        project = factories.make_project(session, "shop")
        item = factories.make_item(session, project)
    lines = [
        {"item": item.id, "better": "tie", "explanation": "Both say it."},
        {
            "prompt": "Where is it?",
            "completions": ["On its way: it arrives on Monday.", "?"],
            "better": 1,
            "ratings": [{"quality": 5}, {"quality": 1}],
            "tolerance": 1,
            "tags": [[], ["vague"]],
        },
        {"prompt": "Order them.", "completions": ["a", "b", "c"], "ranking": [1, 2, 2]},
        {"prompt": "Rate it.", "completions": ["Fine."], "ratings": [{"tone": 4}]},
    ]
    file = tmp_path / "gold.jsonl"
    for wrong, told in (
        ({"item": 999, "better": 1}, "line 5: there is no item 999"),
        ({"item": item.id, "better": 3}, "'better' is a number from 1 to 2"),
        ({"prompt": "x", "completions": ["y"], "ratings": [{"wit": 3}]}, "no criterion 'wit'"),
        ({"prompt": "x", "completions": ["y", "z"], "rating": []}, "unknown setting 'rating'"),
        ({"better": 1}, "either 'item', or 'prompt'"),
    ):
        file.write_text("\n".join(json.dumps(line) for line in (*lines, wrong)))
        assert told in cli("gold", "import", file).error
    file.write_text("not JSON")
    assert "line 1: this is not JSON" in cli("gold", "import", file).error
    assert cli("gold", "list", "--json").json["gold"] == []  # nothing was kept
    file.write_text("\n".join(json.dumps(line) for line in lines))
    made = cli("gold", "import", file, "--json").json["items"]
    assert len(made) == 4
    listed = {line["item"]: line for line in cli("gold", "list", "--json").json["gold"]}
    assert [listed[one]["kind"] for one in made] == ["pair", "pair", "ranking", "single"]
    assert listed[made[1]]["gold"]["ratings"][0]["tolerance"] == 1
    with store() as session:
        assert {row.status.value for row in session.scalars(select(Item))} == {"done"}


def test_people_pass_are_waived_reset_and_lifted(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        project = factories.make_project(session, "shop")
        golden.make_gold(session, project, 2)
        golden.ask(session, project, practice_items=2)
        ann = factories.make_user(session, "ann")
        golden.practise(session, project, ann, True, False)
    (line,) = cli("gold", "people", "--json").json["people"]
    assert (line["stage"], line["attempts"], line["practice_score"], line["admitted"]) == ("practice", 1, 0.5, None)
    assert cli("gold", "waive", "ann").code == 0
    assert cli("gold", "people", "--json").json["people"][0]["stage"] == "work"
    assert cli("gold", "reset", "ann").code == 0
    assert cli("gold", "people", "--json").json["people"][0]["attempts"] == 0
    assert "not paused" in cli("gold", "lift", "ann").error
    assert "no user" in cli("gold", "waive", "nobody").error.lower()
