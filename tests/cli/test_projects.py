"""`feedback-app project` and `feedback-app user token`: members, and keys for programs."""

from sqlalchemy.orm import Session, sessionmaker

from storage import accounts, audit, members, projects, tokens
from storage.enums import Role
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
