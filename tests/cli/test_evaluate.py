"""`feedback-app evaluate`, and the format checks that it counts."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console
from sqlalchemy.orm import Session, sessionmaker

from feedback_app.commands.evaluate import _told
from feedback_app.commands.shared import table
from storage.enums import Split
from tests import factories
from tests.cli.conftest import Cli


def test_an_evaluation_is_queued_or_refused_in_one_line(cli: Cli, store: sessionmaker[Session], tmp_path: Path) -> None:
    with store.begin() as session:
        project = factories.make_project(session, "care")
        factories.make_version(session, project)
    assert "no test prompts" in cli("evaluate", "policy-v1").error
    with store.begin() as session:
        factories.make_prompt(session, project, split=Split.TEST)
    for arguments, says in (
        (["policy-v7"], "no model version 'policy-v7'"),
        (["policy-v0"], "nothing to compare it with"),
        (["policy-v1", "--set", "prompts=0"], "'prompts'"),
        (["policy-v1", "--set", "epochs=2"], "unknown setting 'epochs'"),
    ):
        refused = cli("evaluate", *arguments)
        assert (refused.code, says in refused.error) == (1, True), refused.error
    queued = cli("evaluate", "policy-v1", "--set", "prompts=20", "--json")
    assert (queued.code, queued.json["kind"], queued.json["status"]) == (0, "evaluate", "queued")
    assert cli("runs", "show", queued.json["run"], "--json").json["config"]["prompts"] == 20
    checks = tmp_path / "checks.txt"
    checks.write_text("short: at_most 600\n\nno links: lacks http\n")
    set_ = cli("project", "set", f"formats=@{checks}", "sampling.best_of=8", "--json")
    assert set_.json["settings"]["formats"] == ["short: at_most 600", "no links: lacks http"]
    assert "at_most takes a number" in cli("project", "set", "formats=short: at_most many").error
    assert cli("project", "reset", "formats", "--json").json["settings"] == {"formats": []}


def test_figures_stand_in_a_table_with_their_intervals(cli: Cli) -> None:
    figure = {"value": 0.6123456, "low": 0.5, "high": 0.7, "n": 80, "champion": 0.5}
    apart = {"value": 0.1, "low": -0.1, "high": 0.3}
    figures, note = _told(
        "policy-v2",
        {
            "against": "policy-v1", "judged_by": None, "split": "test", "notes": ["so it is"],
            "figures": {"accuracy": figure | {"difference": apart}, "kl": dict.fromkeys([*figure, "difference"])},
        },
    )  # fmt: skip
    assert note == "note: so it is"
    assert [[str(cell) for cell in column.cells] for column in figures.columns] == [
        ["accuracy", "kl"], ["0.6123", "-"], ["0.5 to 0.7", ""], ["0.5", ""], ["0.1 (-0.1 to 0.3)", ""], ["80", ""],
    ]  # fmt: skip


def test_a_figure_keeps_its_name_on_one_line_however_narrow_the_terminal() -> None:
    drawn = StringIO()
    wide = "0.5512 to 0.6934 (0.5512 to 0.6934)"
    row = ("implicit_accuracy", *[wide] * 3)
    Console(file=drawn, width=60).print(table(("figure", "value", "95 %", "difference"), [row]))
    assert "implicit_accuracy" in drawn.getvalue()
