"""`feedback-app train`, `runs` and `models`, without a worker: what is queued, shown, promoted, refused."""

from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy.orm import Session, sessionmaker

from storage.enums import RunKind, RunStatus
from storage.runs import claim_run, finish_run
from tests import factories
from tests.cli.conftest import Cli, write_pairs


def test_train_queues_a_run_with_a_complete_config(cli: Cli, pairs: Path) -> None:
    cli("import", pairs, "--project", "care")
    queued = cli("train", "dpo", "--project", "care", "--set", "max_steps=3", "--set", "beta=0.5", "--json")
    assert queued.code == 0
    run = queued.json["run"]
    assert (queued.json["status"], queued.json["model_version"]) == ("queued", None)
    shown = cli("runs", "show", run, "--json").json
    assert (shown["config"]["max_steps"], shown["config"]["beta"], len(shown["snapshot"])) == (3, 0.5, 64)
    assert shown["config"]["learning_rate"] is not None
    assert [row["run"] for row in cli("runs", "list", "--json").json["runs"]] == [run]
    assert "feedback-app worker" in cli("train", "reward", "--project", "care").out


def test_train_auto_chooses_and_says_why(cli: Cli, pairs: Path, tmp_path: Path) -> None:
    cli("import", write_pairs(tmp_path / "few.jsonl", 3), "--project", "care")
    refused = cli("train", "auto", "--project", "care")
    assert (refused.code, "too few for DPO" in refused.error) == (1, True)
    assert "no critique" in cli("train", "refine", "--project", "care").error
    assert "refinements" in cli("train", "sft", "--project", "care").error
    cli("import", pairs, "--project", "care")
    queued = cli("train", "auto", "--project", "care", "--set", "max_steps=3", "--json")
    assert (queued.code, queued.json["kind"]) == (0, "dpo")
    assert "enough for DPO" in queued.json["because"]
    assert cli("runs", "show", queued.json["run"], "--json").json["config"]["max_steps"] == 3


def test_a_cycle_is_queued_as_the_project_says_or_as_it_is_told(cli: Cli, pairs: Path) -> None:
    cli("import", pairs, "--project", "care")
    set_ = cli("project", "set", "cycle.steps=train,reward", "cycle.recipe=dpo", "training.kinds=cycle", "--json")
    assert set_.json["settings"]["cycle.steps"] == ["reward", "train"]
    queued = cli("train", "cycle", "--project", "care", "--set", "max_steps=3", "--set", "recipe=auto", "--json")
    assert (queued.code, queued.json["kind"], queued.json["total_steps"]) == (0, "cycle", 2)
    config = cli("runs", "show", queued.json["run"], "--json").json["config"]
    assert config == {"steps": ["reward", "train"], "recipe": "auto", "training": {"max_steps": "3"}}
    assert "run 1 (cycle) is queued" in cli("train", "cycle", "--project", "care").error
    cli("project", "set", "training.mode=every_n")
    assert "by itself: run 1 (cycle) is queued" in cli("runs", "list", "--project", "care").out
    waits = cli("runs", "list", "--project", "care", "--json").json["by_itself"]
    assert waits == {"reason": "run 1 (cycle) is queued", "starts": [], "next_at": None, "refused": []}
    assert cli("runs", "cancel", queued.json["run"], "--json").json["status"] == "cancelled"


@pytest.mark.parametrize(
    ("setting", "says"),
    [("epochz=2", "unknown setting 'epochz'"), ("epochs=many", "'epochs'"), ("learning_rate=-1", "'learning_rate'")],
)
def test_a_wrong_setting_queues_nothing(cli: Cli, pairs: Path, setting: str, says: str) -> None:
    cli("import", pairs, "--project", "care")
    refused = cli("train", "dpo", "--project", "care", "--set", setting)
    assert refused.code == 1
    assert says in refused.error
    assert cli("runs", "list", "--json").json == {"runs": []}


def test_too_little_data_names_the_missing_number(cli: Cli, tmp_path: Path) -> None:
    cli("import", write_pairs(tmp_path / "few.jsonl", 3), "--project", "care")
    refused = cli("train", "dpo", "--project", "care", "--json")
    assert refused.code == 1
    assert "more train pairs" in refused.json["error"]
    assert cli("runs", "list", "--json").json == {"runs": []}


def test_an_unknown_project_is_named_beside_the_known_ones(cli: Cli, pairs: Path) -> None:
    cli("import", pairs, "--project", "care")
    for command in (["train", "dpo"], ["models", "list"], ["runs", "list"]):
        refused = cli(*command, "--project", "cure")
        assert refused.code == 1
        assert "no project 'cure'; projects: care" in refused.error


def test_a_queued_run_is_cancelled_at_once_and_only_once(cli: Cli, pairs: Path) -> None:
    cli("import", pairs, "--project", "care")
    run = cli("train", "reward", "--project", "care", "--json").json["run"]
    assert cli("runs", "cancel", run, "--json").json == {"run": run, "status": "cancelled"}
    again = cli("runs", "cancel", run)
    assert (again.code, "ended" in again.error) == (1, True)


def test_who_waits_for_a_run_that_fails_gets_its_reason_and_1(
    cli: Cli, pairs: Path, store: sessionmaker[Session]
) -> None:
    def work() -> None:
        run = None
        while run is None:
            with store.begin() as session:
                run = claim_run(session, "w", [RunKind.DPO])
                if run is not None:
                    finish_run(session, run.id, "w", RunStatus.FAILED, error="loss became NaN at step 3")

    cli("import", pairs, "--project", "care")
    worker = Thread(target=work, daemon=True)
    worker.start()
    failed = cli("train", "dpo", "--project", "care", "--wait", "--json")
    worker.join(10)
    assert (failed.code, failed.json["status"], failed.json["model_version"]) == (1, "failed", None)
    assert failed.json["error"] == "loss became NaN at step 3"


def test_the_log_and_the_reason_of_a_failed_run_can_be_read(cli: Cli, store: sessionmaker[Session]) -> None:
    from storage.run_events import add_log

    with store.begin() as session:
        run = factories.make_run(session, factories.make_project(session, "care"), worker="w")
        add_log(session, run.id, ["one", "two [bold]"])
        finish_run(session, run.id, "w", RunStatus.FAILED, error="loss became NaN at step 3; lower the learning rate")
    assert cli("runs", "log", run.id).out.splitlines() == ["one", "two [bold]"]
    assert cli("runs", "log", run.id, "--after", 1, "--json").json == {"run": run.id, "lines": ["two [bold]"]}
    assert cli("runs", "show", run.id, "--json").json["error"].startswith("loss became NaN")


def test_promote_and_roll_back(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        project = factories.make_project(session, "care")
        names = [factories.make_version(session, project).name for _ in range(2)]
    assert names == ["policy-v1", "policy-v2"]
    first = cli("models", "promote", "policy-v1", "--reason", "better", "--json").json
    assert first == {"project": "care", "champion": "policy-v1", "previous": "policy-v0"}
    assert cli("models", "promote", "policy-v2", "--project", "care", "--reason", "kinder").code == 0
    again = cli("models", "promote", "policy-v2")
    assert (again.code, "already" in again.error) == (1, True)
    back = cli("models", "rollback", "--json").json
    assert back == {"project": "care", "champion": "policy-v1", "previous": "policy-v2"}
    states = {row["version"]: row["status"] for row in cli("models", "list", "--json").json["versions"]}
    assert states["policy-v1"] == "champion"
    shown = cli("models", "show", "policy-v1", "--json").json
    assert (shown["parents"], shown["status"]) == (["policy-v0"], "champion")


def test_unknown_versions_and_nothing_to_roll_back_to(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        factories.make_version(session, factories.make_project(session, "care"))
    for command in ("show", "promote"):
        refused = cli("models", command, "policy-v9")
        assert (refused.code, "policy-v9" in refused.error) == (1, True)
    refused = cli("models", "rollback", "--kind", "reward")
    assert (refused.code, "nothing to roll back to" in refused.error) == (1, True)


def test_with_several_projects_the_name_is_asked_for(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        for name in ("care", "qa"):
            factories.make_project(session, name)
    refused = cli("models", "list")
    assert refused.code == 1
    assert "care, qa" in refused.error


def test_lineage_and_compare_are_told_on_the_command_line(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        project, user = factories.make_project(session, "care"), factories.make_user(session)
        factories.make_items(session, project, 3)
        used = [factories.make_annotation(session, project, user) for _ in range(3)]
        factories.make_version(session, project, snapshot=factories.make_snapshot(session, project, used))
        factories.make_version(session, project, snapshot=factories.make_snapshot(session, project, used[:2]))
        number = used[2].id
    first = cli("models", "lineage", "policy-v1", "--rows", 2, "--json").json
    assert (first["basis"]["annotations"], len(first["entries"]), first["parents"]) == (3, 2, ["policy-v0"])
    rest = cli("models", "lineage", "policy-v1", "--after", first["after"], "--json").json
    assert ([one["annotations"] for one in rest["entries"]], rest["after"]) == ([[number]], None)
    back = cli("models", "lineage", "--annotation", number, "--json").json
    assert [(one["version"], one["rows"]) for one in back["learned"]] == [("policy-v1", 1)]
    assert "policy-v1" in cli("models", "lineage", "--annotation", number).out
    assert "name a version" in cli("models", "lineage").error
    assert "nothing to rebuild" in cli("models", "rebuild", "policy-v1").error
    both = cli("models", "compare", "policy-v1", "policy-v2", "--json").json
    assert both["trained"] == {"accuracy": [0.7, 0.7]}
    assert [(one["version"], one["removed"]) for one in both["data"]] == [("policy-v2", 1)]
    assert "1 removed" in cli("models", "compare", "policy-v1", "policy-v2").out
    assert "2 to 4 versions" in cli("models", "compare", "policy-v1").error
    assert "nothing to export" in cli("models", "export", "policy-v0", "--out", "nowhere").error
    assert "is missing" in cli("models", "export", "policy-v1", "--out", "nowhere").error, "the factory writes no files"
    assert not Path("nowhere").exists()
