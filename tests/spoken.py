"""What the pages say, read from their source: texts handed to `t`, `plural`, `later` and `feedback.t`, and errors."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "feedback_app"
SCRIPTS = sorted((APP / "static").glob("*.js"))
# What only the command line, the API and programs meet stays English.
UNREAD = ("api", "commands", "i18n", "cli.py", "demo", "doctor", "supervisor", "waiting", "settings", "server.py")


def pages() -> list[Path]:
    """The Python files that make what people read in the browser."""
    found = [path.relative_to(APP) for path in sorted(APP.rglob("*.py"))]
    return [APP / path for path in found if not str(path).startswith(UNREAD)] + [APP / "server.py"]


def _literals(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (*_literals(node.body), *_literals(node.orelse))


def texts(path: Path) -> Iterator[str]:
    """The texts of a Python file; those of the templates in it too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            places = {"t": slice(0, 1), "later": slice(0, 1), "plural": slice(1, 3)}.get(node.func.id)
            for argument in node.args[places] if places else []:
                yield from _literals(argument)
    if path.name == "plain.py" or path.name.endswith("_templates.py"):
        yield from re.findall(r'\bt\("([^"]+)"', path.read_text())


def script_texts(path: Path) -> Iterator[str]:
    """The texts of a script."""
    for call in re.findall(r"\b(?:t|plural)\(\s*((?:[^()]|\([^()]*\))*)\)", path.read_text()):
        yield from (json.loads(f'"{text}"') for text in re.findall(r'"((?:[^"\\]|\\.)*)"', call))


# --- errors ---

ERRORS = {
    *("FeedbackError", "NotFound", "Conflict", "Invalid", "NotEnoughData", "NotAllowed"),
    *("StoreUnavailable", "ModelUnusable", "TrainingFailed", "NotDelivered"),
}


def template(node: ast.expr) -> str | None:
    """`at most {0} criteria` from the f-string; values that stand side by side count as one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
    found, number = "", 0
    for before, part in zip(["", *parts], parts, strict=False):
        if part is not None:
            found += str(part)
        elif before is not None or number == 0:
            found += f"{{{number}}}"
            number += 1
    return found


def strings(*rooms: str) -> set[str]:
    """Every string and pattern of an f-string in the rooms."""
    trees = (ast.parse(path.read_text()) for room in rooms for path in (ROOT / room).rglob("*.py"))
    return {found for tree in trees for node in ast.walk(tree) if (found := template(node))}  # type: ignore[arg-type]


def errors(path: Path) -> Iterator[str]:
    """The patterns of the errors that a file raises."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in ERRORS:
            continue
        for argument in node.args[:1]:
            choices = (argument.body, argument.orelse) if isinstance(argument, ast.IfExp) else (argument,)
            yield from filter(None, map(template, choices))


def returned(path: Path, function: str) -> Iterator[str]:
    """The patterns of what a function of a file returns, alone or first in a tuple; those that say something."""
    tree = ast.parse(path.read_text())
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function)
    for node in (one for each in found for one in ast.walk(each) if isinstance(one, ast.Return) and one.value):
        for value in node.value.elts[:1] if isinstance(node.value, ast.Tuple) else [node.value]:
            parts = value.values if isinstance(value, ast.BoolOp) else [value]
            yield from (text for part in parts if (text := template(part)) and _WORDS.search(text))


# --- what should have been handed to one of them ---

_SHOWN = {"label", "info", "placeholder", "title", "x_title", "headers"}
_TITLED = {"Button", "Tab", "Accordion", "Info", "Warning"}
_WORDS = re.compile(r"[A-Za-z]{2,}")
# Names of keys on a keyboard, and the name of the program.
SAME = {"Feedback", "Ctrl", "Enter", "Alt", "Del", "Esc", "Shift"}
_IN_HTML = re.compile(
    r"[a-z\"/]>\s*([A-Za-z][A-Za-z ,.;:’'…-]+)|(?:aria-label|title|placeholder)=\"([^\"{]*[A-Za-z]{2}[^\"{]*)"
)


def bare(path: Path) -> Iterator[str]:
    """English words in a page's file that reach a component or HTML as they are."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _of_gradio(node.func):
            if any(one.arg == "visible" and ast.unparse(one.value) == "'hidden'" for one in node.keywords):
                continue
            shown = [one.value for one in node.keywords if one.arg in _SHOWN]
            shown += node.args[:1] if node.func.attr in _TITLED else []
            yield from (
                f"{path.name}:{node.lineno} {one.value}"
                for value in shown
                for one in (value.values if isinstance(value, ast.JoinedStr) else [value])
                if isinstance(one, ast.Constant) and _WORDS.search(str(one.value))
            )
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            for text, attribute in _IN_HTML.findall(node.value):
                if (text or attribute).strip() not in SAME:
                    yield f"{path.name}:{node.lineno} {text or attribute}"


def _of_gradio(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "gr"


_BARE_IN_SCRIPT = re.compile(
    r"(?:textContent|title|placeholder|ariaLabel)\s*[:=]\s*[\"`]([^\"`$]*[A-Za-z]{2}[^\"`]*)"
    r"|setAttribute\(\"aria-label\",\s*[\"`]([^\"`]*)"
    r"|(?:confirm|notice|say)\(\s*[\"`]([^\"`]*)"
)


def bare_in_script(path: Path) -> Iterator[str]:
    """English words in a script that reach the page as they are."""
    for groups in _BARE_IN_SCRIPT.findall(path.read_text()):
        yield f"{path.name} {''.join(groups)}"
