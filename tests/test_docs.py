"""The documents tell the truth: every setting is in README, and every command in README is one."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from feedback_app.cli import app
from feedback_app.settings import PREFIX, Settings
from storage.export import FORMATS as EXPORT_FORMATS
from storage.export import TABLES
from storage.ingest import FORMATS as IMPORT_FORMATS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    documented = set(re.findall(rf"^\| `({PREFIX}\w+)` \|", README, re.MULTILINE))
    assert documented == {PREFIX + name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_readme_names_the_default(name: str) -> None:
    default = Settings.model_fields[name].default
    if name in ("database_url", "public_url"):
        return  # empty: README says what stands in for them
    row = next(line for line in README.splitlines() if line.startswith(f"| `{PREFIX}{name.upper()}`"))
    shown = row.split("|")[2].strip().strip("`").removeprefix("./")
    assert shown == (f"{default:g}" if isinstance(default, float) else str(default))


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def _commands_in(text: str) -> list[str]:
    """Lines of code blocks that are commands of ours, and command spans of tables."""
    lines = [line.strip() for line in text.splitlines() if re.match(r" {4,}feedback-app ", line)]
    return lines + re.findall(r"`(feedback-app [^`]+)`", text)


def _parse(command: str) -> None:
    """Resolve the command and its options as the program would, without running it."""
    words = shlex.split(re.sub(r"\[|\]|…", "", command).replace("\\|", "|"))[1:]
    current = typer.main.get_command(app)
    while getattr(current, "commands", None):
        assert words, f"'{command}' names a group only"
        name = words.pop(0)
        assert name in current.commands, f"'{name}' in '{command}' is no command"
        current = current.commands[name]
    known = {option for parameter in current.params for option in parameter.opts} | {"--help", "-h"}
    assert not [word for word in words if word.startswith("-") and word not in known], command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_in_the_documents_exists(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    for command in _commands_in(text):
        _parse(command)


def test_every_command_is_in_the_readme() -> None:
    table = README.partition("## Commands")[2].partition("## Settings")[0]
    for name, command in typer.main.get_command(app).commands.items():
        assert f"feedback-app {name}" in table, name
        for inner in getattr(command, "commands", {}):
            assert f"`{inner}`" in table or f"{name} {inner}" in table, f"{name} {inner}"


def test_every_format_is_in_the_readme() -> None:
    for name in (*IMPORT_FORMATS, *TABLES, *EXPORT_FORMATS):
        assert f"`{name}`" in README, name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_pictures_of_the_documents_are_there(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_make_targets_named_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    documents = README + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"(?:^ {4}|`)make (\w+)", documents, re.MULTILINE))
    assert {"up", "test", "install"} <= named <= targets


def test_constraints_pin_every_direct_dependency_within_its_range() -> None:
    import tomllib

    from packaging.requirements import Requirement

    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for line in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        wanted = Requirement(line)
        assert wanted.specifier.contains(pins[wanted.name.lower()]), line
