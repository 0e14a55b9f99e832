"""`feedback-app rules`: from suggestions to the system prompt."""

from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.cli.conftest import Cli
from tests.storage.test_rules import SAID, criticise


def test_a_suggestion_is_listed_edited_and_switched(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        project, ann = factories.make_project(session, "shop"), factories.make_user(session, "ann")
        for at, said in enumerate(SAID):
            criticise(session, project, ann, said, prompt=f"When will parcel {at} be here?")
    assert cli("rules", "list", "--json").json == {"rules": []}
    found = cli("rules", "suggest", "--json").json
    assert (found["critiques"], len(found["new"])) == (6, 1)
    number = found["new"][0]["rule"]
    assert cli("rules", "suggest", "-p", "shop").code == 0
    edited = cli("rules", "edit", number, "--instruction", "Give a date.", "--phrase", "parcel", "--json").json
    assert edited == {"rule": number, "revision": 2}
    assert cli("rules", "on", number, "--json").json == {"rule": number, "state": "on"}
    shown = cli("rules", "show", number, "--json").json
    assert shown["matches"]["matched"] == shown["matches"]["prompts"] == 6
    assert {one["text"] for one in shown["said"]} == set(SAID)
    assert [one["revision"] for one in shown["revisions"]] == [1, 2]
    assert "Give a date." in cli("rules", "show", number).out
    assert cli("rules", "write", "--prompts", 10, "--json").json == {"run": 1}
    for state in ("learned", "off", "dismiss"):
        assert cli("rules", state, number).code == 0
    (line,) = cli("rules", "list", "--json").json["rules"]
    assert (line["state"], line["critiques"], line["people"]) == ("dismissed", 6, 1)
    own = cli("rules", "add", "--name", "tone", "--instruction", "Be kind.", "--json").json["rule"]
    assert cli("rules", "edit", own, "--phrase", "", "--position", "0").code == 0


def test_wrong_input_is_one_line(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        factories.make_project(session, "shop")
    assert "no rule 7" in cli("rules", "on", 7).error
    assert "no rule 7" in cli("rules", "show", 7).error
    assert "say what to change" in cli("rules", "edit", 7).error
    assert "at_least" in cli("rules", "suggest", "--at-least", 1).error
    assert "needs an instruction" in cli("rules", "add", "--name", "x", "--instruction", " ").error
    assert cli("rules", "on", "first").code == 2
    assert cli("rules").code == 2
