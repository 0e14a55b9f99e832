"""The rules of the house that a person would otherwise have to remember."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("storage", "trainer", "feedback_app")
HEAVY = ("torch", "transformers", "trl", "peft", "datasets")
MAY_IMPORT = {"storage": set(), "trainer": {"storage"}, "feedback_app": {"storage"}}


def sources(*rooms: str) -> list[Path]:
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    assert found
    return found


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(top-level package, node) of every absolute import below `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], node


def starts_workers(path: Path) -> bool:
    """The files of feedback_app that may reach into the trainer, inside a function: none of them is a page's."""
    parts = path.relative_to(ROOT / "feedback_app").parts
    return parts[0] == "commands" or parts[0].startswith(("cli", "demo", "doctor"))


def late_imports(tree: ast.AST) -> set[int]:
    """The ids of nodes that importing the file does not run: inside a function, or for the type checker only."""
    late = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = set()
    for node in ast.walk(tree):
        types_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if isinstance(node, late) or types_only:
            inside |= {id(child) for child in ast.walk(node)}
    return inside


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room: str) -> None:
    broken = []
    for path in sources(room):
        tree = ast.parse(path.read_text())
        late = late_imports(tree)
        for package, node in imports(tree):
            if package not in ROOMS or package == room or package in MAY_IMPORT[room]:
                continue
            if room == "feedback_app" and package == "trainer" and starts_workers(path) and id(node) in late:
                continue
            broken.append(f"{path.relative_to(ROOT)}:{node.lineno} imports {package}")  # type: ignore[attr-defined]
    assert broken == []


def test_no_room_is_two_rooms() -> None:
    """A file that passes 400 lines is asking to be split. (A migration is written once and never read again.)"""
    long = {
        str(path.relative_to(ROOT)): count
        for path in sources(*ROOMS)
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


def test_storage_never_commits() -> None:
    """The caller owns the transaction. Import alone opens its own, one a batch, so that its memory stays flat."""
    broken = []
    for path in sources("storage"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit":
                broken.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert broken == []


def test_every_public_function_of_the_store_says_what_it_does() -> None:
    missing = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources("storage")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert missing == []


def test_the_web_process_never_loads_the_trainer_s_packages() -> None:
    code = (
        "import sys, feedback_app.server\n"
        f"print(sorted(set({HEAVY!r}) & {{name.split('.')[0] for name in sys.modules}}))"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"
