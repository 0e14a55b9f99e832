"""`feedback-app user erase` and what `models` says of it afterwards."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from storage.accounts import find_user
from storage.audit import list_events
from tests import factories
from tests.cli.conftest import Cli


def test_a_person_is_erased_and_the_models_say_what_rested_on_them(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        project = factories.make_project(session, "shop")
        anna = factories.make_user(session, "anna")
        factories.make_items(session, project, 1)
        said = factories.make_annotation(session, project, anna)
        snapshot = factories.make_snapshot(session, project, [said])
        version = factories.make_version(session, project, snapshot=snapshot)
        name = f"erased-{anna.id}"
    before = cli("models", "show", version.name, "--json").json
    assert (before["tainted_since"], before["tainted_by"]) == (None, 0)
    done = cli("user", "erase", "anna", "--yes", "--json").json
    assert (done["name"], done["annotations"], done["snapshots"]) == (name, 1, [snapshot.folder])
    assert done["runs"] == [f"runs/{version.run_id}"]
    after = cli("models", "show", version.name, "--json").json
    assert after["tainted_since"] is not None
    assert (after["tainted_by"], after["withdrawn"]) == (1, 1)
    listed = {row["version"]: row["tainted_by"] for row in cli("models", "list", "--json").json["versions"]}
    assert listed == {"policy-v0": 0, version.name: 1}
    assert "1 annotations" in cli("models", "list").out
    with store.begin() as session:
        assert find_user(session, "anna") is None
        assert [event.subject for event in list_events(session) if event.action == "user.erase"] == [name]
    again = cli("user", "erase", "anna", "--yes")
    assert (again.code, "no user 'anna'" in again.error) == (1, True)
    assert "erased already" in cli("user", "erase", name, "--yes").error
    assert "was erased" in cli("user", "enable", name).error
    assert "erased" in cli("user", "list").out


def test_nothing_is_erased_without_a_yes(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        factories.make_user(session, "anna")
    assert cli("user", "erase", "anna").code != 0
    with store.begin() as session:
        found = find_user(session, "anna")
        assert found is not None
        assert found.disabled_at is None
