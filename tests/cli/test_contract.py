"""What scripts rely on: --json everywhere, exit codes, one line for what is wrong, a quick start."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from feedback_app import cli as cli_module
from storage.errors import FeedbackError
from tests.cli.conftest import Cli


def _commands() -> Iterator[tuple[str, object]]:
    def walk(name: str, command: object) -> Iterator[tuple[str, object]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
            return
        for key, value in inner.items():
            yield from walk(f"{name} {key}".strip(), value)

    yield from walk("", typer.main.get_command(cli_module.app))


COMMANDS = dict(_commands())


def test_every_command_of_the_contract_is_there() -> None:
    promised = {"up", "web", "worker", "import", "export", "train", "demo", "doctor", "db upgrade", "db check"}
    promised |= {f"runs {name}" for name in ("list", "show", "cancel", "log")}
    promised |= {f"models {name}" for name in ("list", "show", "promote", "rollback")}
    promised |= {f"user {name}" for name in ("add", "passwd", "disable")}
    assert promised <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_help_for_each_option(name: str) -> None:
    options = {option: parameter for parameter in COMMANDS[name].params for option in parameter.opts}
    assert "--json" in options
    assert COMMANDS[name].help
    assert all(parameter.help for parameter in options.values() if not parameter.hidden)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["runs"],
        ["train", "dpo"],
        ["train", "sorcery", "--project", "p"],
        ["train", "dpo", "--project", "p", "--set", "epochs"],
        ["train", "dpo", "--project", "p", "--set", "seed=1", "--set", "seed=2"],
        ["import", "--project", "p"],
        ["import", "x.jsonl", "--project", "p", "--format", "zip"],
        ["export", "--project", "p", "--what", "everything", "--out", "x"],
        ["export", "--project", "p", "--what", "ratings", "--format", "zip", "--out", "x"],
        ["runs", "show", "first"],
        ["user", "add", "bo", "--role", "king"],
        ["models", "rollback", "--kind", "judge"],
        ["worker", "--kinds", "coffee"],
        ["web", "--port", "70000"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_one_line(cli: Cli, arguments: list[str]) -> None:
    ended = cli(*arguments)
    assert ended.code == 2
    assert "--help" in ended.error
    as_json = cli(*arguments, "--json")
    assert as_json.code == 2
    assert as_json.json["error"]


def test_what_a_person_can_mend_is_exit_code_1_one_line_and_one_object(cli: Cli) -> None:
    ended = cli("runs", "show", "7", "--json")
    assert ended.code == 1
    assert ended.json == {"error": ended.error}
    assert "no run 7" in ended.error


def test_a_fault_of_the_program_keeps_its_traceback_in_the_log_folder(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.accounts.list_users", lambda _session: 1 / 0)
    ended = cli("user", "list")
    assert ended.code == 1
    assert "ZeroDivisionError" in ended.error
    log = home / "logs" / "errors.log"
    assert str(log) in ended.error
    assert "Traceback" in log.read_text()


def test_a_line_break_in_a_message_stays_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_session: object) -> None:
        raise FeedbackError("first\nsecond")

    monkeypatch.setattr("storage.accounts.list_users", refuse)
    assert cli("user", "list").error == "first second"


def test_help_waits_for_neither_the_database_nor_the_models() -> None:
    code = (
        "import sys; from feedback_app.cli import main; main(['train', '--help']); "
        "print(sorted({name.split('.')[0] for name in sys.modules} "
        "& {'torch', 'transformers', 'trl', 'sqlalchemy', 'gradio', 'alembic'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_console_script_and_the_module_are_the_same_program(home: Path) -> None:
    script = Path(sys.executable).parent / "feedback-app"
    for program in ([str(script)], [sys.executable, "-m", "feedback_app"]):
        done = subprocess.run([*program, "user", "list", "--json"], capture_output=True, text=True, check=False)
        assert (done.returncode, json.loads(done.stdout)) == (0, {"users": []})
