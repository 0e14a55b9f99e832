"""`feedback-app gate` and what it takes to promote: bars as settings, the verdict, the reason."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from storage import projects, registry
from tests import factories
from tests.cli.conftest import Cli


def test_a_version_is_judged_and_promoted_on_the_command_line(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        project = factories.make_project(session, "care")
        version = factories.make_version(session, project)
    refused = cli("gate", "policy-v1")
    assert (refused.code, "feedback-app evaluate policy-v1" in refused.error) == (1, True)
    refused = cli("models", "promote", "policy-v1")
    assert (refused.code, "feedback-app gate policy-v1), or give a reason (--reason)" in refused.error) == (1, True)
    with store.begin() as session:
        factories.make_judgeable(session, version, registry.champion(session, project))
    assert cli("project", "set", "gate.win_rate=0.6", "gate.required=win_rate,kl").code == 0
    close = cli("gate", "policy-v1", "--json")
    assert (close.code, close.json["verdict"], close.json["why"]) == (1, "inconclusive", "not decided: win_rate")
    assert [row["name"] for row in close.json["rows"] if row["required"]] == ["win_rate", "kl"]
    assert "win_rate *" in cli("gate", "policy-v1").out
    assert "no bar for 'charm'" in cli("project", "set", "gate.required=charm").error
    assert cli("project", "reset", "gate.win_rate", "--json").json["settings"] == {"gate.win_rate": 0.5}
    passed = cli("gate", "policy-v1", "--json")
    assert (passed.code, passed.json["verdict"], passed.json["champion"]) == (0, "pass", "policy-v0")
    shown = cli("models", "show", "policy-v1", "--json").json
    assert (shown["gate"]["verdict"], shown["evaluation"]["against"]) == ("pass", "policy-v0")
    started = cli("blind-test", "start", "policy-v1")
    assert (started.code, "add prompts first" in started.error) == (1, True)
    with store.begin() as session:
        factories.make_prompt(session, projects.get_project(session, "care"))
    started = cli("blind-test", "start", "policy-v1", "--json").json
    assert (started["state"], started["needed"], started["error"]) == ("running", 230, 0.05)
    shown = cli("blind-test", "show").out
    assert "about 230 more decided comparisons; 0 pairs wait in the queue" in shown
    assert cli("blind-test", "stop", "--json").json["state"] == "stopped"
    assert "has ended: stopped" in cli("blind-test", "stop").error
    assert cli("models", "promote", "policy-v1", "--json").json["previous"] == "policy-v0"
    told = cli("monitor", "--json").json
    assert (told["champion"]["instead_of"], told["versions"], told["alerts"]) == ("policy-v0", [], [])
    assert "win_rate -, to hold: 0.5: too few judgements to say" in cli("monitor").out
