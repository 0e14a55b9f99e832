"""`feedback-app project` and `feedback-app user token`: members, and keys for programs."""

from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from storage import accounts, audit, members, projects, tokens
from storage.enums import Role
from storage.wordings import REFINE
from tests import factories
from tests.cli.conftest import Cli


def test_a_project_is_closed_and_members_are_let_in(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        factories.make_project(session, "care")
        factories.make_user(session, "anna")
    assert cli("project", "close", "--json").json == {"project": "care", "members_only": True}
    assert cli("project", "members", "add", "anna", "--json").json["changed"]
    assert not cli("project", "members", "add", "anna", "--json").json["changed"]
    listed = cli("project", "members", "list", "--json").json
    assert listed == {"project": "care", "members_only": True, "members": [{"name": "anna", "role": "annotator"}]}
    with store.begin() as session:
        assert members.find_project(session, accounts.get_user(session, "anna"), "care") is not None
    assert cli("project", "members", "remove", "anna", "--project", "care", "--json").json["changed"]
    with store.begin() as session:
        assert members.find_project(session, accounts.get_user(session, "anna"), "care") is None
    assert cli("project", "open").code == 0
    with store.begin() as session:
        assert not projects.get_project(session, "care").members_only
        actions = [event.action for event in audit.list_events(session)]
    assert actions == ["project.open", "project.member.remove", "project.member.add", "project.close"]


def test_unknown_people_and_projects_are_said_so(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        factories.make_project(session, "care")
    assert "no user 'bob'" in cli("project", "members", "add", "bob").error
    assert "no project 'x'" in cli("project", "close", "--project", "x").error


def test_settings_are_shown_changed_and_put_back(cli: Cli, store: sessionmaker[Session], tmp_path: Path) -> None:
    with store.begin() as session:
        factories.make_project(session, "care")
    before = cli("project", "show", "--json").json["settings"]
    assert (before["refining.samples"], before["templates.refine"], before["sampling.top_p"]) == (5, REFINE, 0.9)
    assert "refining.samples" in cli("project", "show").out
    wording = tmp_path / "judge.txt"
    wording.write_text("Ist es gut? {critique}\n---\nPasst es?\n\n{critique}\n")
    given = {
        "tags": "tone, facts",
        "overlap": "3",
        "review_share": "0.5",
        "training.unreviewed_refinement_weight": "0",
        "training.kinds": "dpo",
        "refining.refiner": "endpoint",
        "refining.endpoint_model": "large",
        "templates.judge": f"@{wording}",
        "templates.yes": "ja",
        "templates.no": "nein",
        "templates.refine": REFINE,
    }
    changed = cli("project", "set", *(f"{name}={value}" for name, value in given.items()), "--json").json["settings"]
    assert changed["templates.judge"] == ["Ist es gut? {critique}", "Passt es?\n\n{critique}"]
    assert (changed["tags"], changed["overlap"], changed["training.kinds"]) == (["tone", "facts"], 3, ["dpo"])
    with store.begin() as session:
        own = projects.get_project(session, "care").annotation_settings
        assert own["templates"]["refine"] is None, "worded as ours: not the project's own"
    assert cli("project", "set", "refining.refiner=champion").code == 0
    after = cli("project", "reset", *given, "--json").json["settings"]
    assert after == {name: before[name] for name in given}
    assert cli("project", "show", "--json").json["settings"] == before


def test_settings_that_cannot_be_are_refused_and_nothing_is_changed(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        factories.make_project(session, "care")
    before = cli("project", "show", "--json").json
    for given, line in {
        "templates.refine=Again": "write {critique}",
        "refining.samples=0": "greater than or equal to 1",
        "refining.endpoint_model=x": "set refiner=endpoint",
        "refining.refiner=nobody": "pattern",
        "samples=3": "no setting 'samples'",
        "templates=x": "no setting 'templates'",
        "overlap=many": "whole number",
        "templates.judge=@/nowhere": "cannot be read",
        "overlap": "not NAME=VALUE",
    }.items():
        assert line in cli("project", "set", "review_share=1", given).error, given
    assert "no setting 'colour'" in cli("project", "reset", "colour").error
    assert cli("project", "show", "--json").json == before


def test_a_token_is_printed_once_listed_and_revoked(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        factories.make_user(session, "anna", Role.OPERATOR)
    given = ("anna", "--for", "shop", "--scope", "read", "--scope", "write", "--days", "7")
    made = cli("user", "token", "add", *given, "--json").json
    with store.begin() as session:
        found = tokens.find_token(session, made["token"])
        assert found is not None
        assert (found.user.name, found.scopes) == ("anna", ["read", "write"])
    listed = cli("user", "token", "list", "--json")
    assert made["token"] not in listed.out
    assert [row["state"] for row in listed.json["tokens"]] == ["in force"]
    assert cli("user", "token", "revoke", "anna", str(made["id"])).code == 0
    with store.begin() as session:
        assert tokens.find_token(session, made["token"]) is None
    assert [row["state"] for row in cli("user", "token", "list", "anna", "--json").json["tokens"]] == ["revoked"]


def test_bad_tokens_are_refused(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        factories.make_user(session, "anna")
    assert "unknown scope" in cli("user", "token", "add", "anna", "--for", "x", "--scope", "root").error
    assert (
        "no project 'care'" in cli("user", "token", "add", "anna", "--for", "x", "--scope", "read", "-p", "care").error
    )
    assert "no token 7" in cli("user", "token", "revoke", "anna", "7").error
