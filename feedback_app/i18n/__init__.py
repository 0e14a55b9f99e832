"""Everything people read in the browser, in their language. The command line, the API and the log stay English.

The English text is the key; a folder here holds what it is in another language, as {"English": "translation"} by page
(`zh-CN/*.json`). `scripts.json` goes to the browser, `messages.json` holds the errors of all rooms. A text without a
translation is shown in English. How to write one:

- `t("Run {number} is queued.", number=7)` in whatever runs for a person: handlers, what pages show, templates. The text
  is a literal (a test collects them); values come by name, never by joining pieces: languages order them differently.
- `plural(count, "{n} minute", "{n} minutes")`: the number is shown as `{n}`.
- `later("Submit")` in a layout: Gradio builds a page once for everybody, so a mark stands there until the page is sent
  (`feedback_app.i18n.edge`). Labels, placeholders, choices, headers and fixed HTML alike; no `<>&"` in such a text.
- `message(str(error))` for a `FeedbackError`: those are written in English where they are raised, as they also go to
  the command line; here they are matched with their pattern, `at most {0} criteria`. `said(error)` is that as a
  sentence.
- `feedback.t("Show older ones")` in a script (static/language.js), with values as the second argument.
- `named(key)` for a setting or figure that has a name in code only.
- `moment(at)`, `day(at)`, `clock(at)`: in the reader's time zone.

Not `gr.I18n`: it translates a component's label, info, placeholder, title and value by the browser's locale, in the
browser; not choices, headers and HTML, and not by a person's setting. Gradio's own words follow the same setting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

# What people can read the pages in: the tag of the language and its name in itself. English needs no folder.
LANGUAGES = {"en": "English", "zh-CN": "简体中文"}
ENGLISH = "en"

_FOLDER, _MESSAGES = Path(__file__).parent, "messages.json"
_STOPS = {ENGLISH: ".", "zh-CN": "。"}
# Private characters that stand in no text of ours around the number of a text that is filled in later.
_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_later: dict[tuple[str, tuple[tuple[str, Any], ...]], int] = {}


class Reader(NamedTuple):
    """Whom a page is made for."""

    language: str = ENGLISH
    zone: str = "UTC"


_NOBODY = Reader()
_reader: ContextVar[Reader] = ContextVar("reader", default=_NOBODY)


def reader() -> Reader:
    """Whom the page is made for that is being made now; an English reader in UTC outside of any page."""
    return _reader.get()


def read_by(who: Reader) -> None:
    """From here on, within this request, pages are made for `who`."""
    _reader.set(who)


@contextmanager
def reading(who: Reader) -> Iterator[None]:
    """Within the block, pages are made for `who`."""
    before = _reader.set(who)
    try:
        yield
    finally:
        _reader.reset(before)


# --- texts ---


def t(text: str, **values: Any) -> str:
    """`text` in the reader's language, with `values` in the places of their names."""
    found = catalogue(reader().language).get(text, text)
    return found.format(**values) if values else found


def plural(n: int, one: str, many: str, **values: Any) -> str:
    """`one` or `many` as English has it for `n`, in the reader's language; `{n}` shows it as 1,234."""
    return t(one if n == 1 else many, n=f"{n:,}", **values)


def later(text: str, **values: Any) -> str:
    """A mark for `text` in a layout that is built once for everybody; `fill` puts the reader's words in its place."""
    return f"{_OPEN}{_later.setdefault((text, tuple(values.items())), len(_later))}{_CLOSE}"


def fill(page: str) -> str:
    """`page` with the reader's words in the places of `later`."""
    texts = [t(text, **dict(values)) for text, values in _later]
    return _MARK.sub(lambda mark: texts[int(mark[1])], page)


def listed(texts: Iterable[str]) -> str:
    """`texts` one after the other, as the language writes a list."""
    return t(", ").join(texts)


def named(key: str) -> str:
    """What code calls `test_accuracy` or `fit.train.kept`, in words; names.json has those of settings and figures."""
    words = " · ".join(t(part.replace("_", " ")) for part in key.split("."))
    return " ".join(word.upper() if word in _INITIALISMS else word for word in words.split(" "))


_INITIALISMS = {"ece", "f1", "kl", "nll"}


def sentence(line: str) -> str:
    """`line` with a capital, unless a name as policy-v2 begins it, and a full stop."""
    line = line.strip()
    if not line:
        return line
    named = any(sign.isdigit() for sign in line.split(maxsplit=1)[0])
    return (
        (line[0] if named else line[0].upper())
        + line[1:]
        + ("" if line[-1] in ".!?)。！？）…" else _STOPS[reader().language])
    )


@cache
def catalogue(language: str) -> dict[str, str]:
    """The translations into `language` of all but errors, by their English text; empty for English."""
    parts = [part for part in sorted(_FOLDER.glob(f"{language}/*.json")) if part.name != _MESSAGES]
    return {key: value for part in parts for key, value in _read(part).items()}


def of_scripts(language: str) -> dict[str, str]:
    """The translations that the scripts in the browser need."""
    part = _FOLDER / language / "scripts.json"
    return _read(part) if part.exists() else {}


@cache
def _read(part: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(part.read_text(encoding="utf-8"))
    return found


# --- errors, which are written in English wherever they are raised ---


def message(line: str) -> str:
    """`line` of a `FeedbackError` in the reader's language; as it is where no pattern fits."""
    language = reader().language
    if language == ENGLISH:
        return line
    known = _read(_FOLDER / language / _MESSAGES)
    if line in known:
        return known[line]
    for parts, translation in _patterns(language):
        values = _values(line, parts)
        if values is not None:
            # What stands in quotes is a name that people gave; other values may be words of ours.
            quoted = [part.endswith("'") for part in parts]
            return translation.format(*(v if q else message(v) for v, q in zip(values, quoted, strict=False)))
    return line


@cache
def _patterns(language: str) -> list[tuple[list[str], str]]:
    """The texts around the values of each error with values, the one that says most first."""
    part = _FOLDER / language / _MESSAGES
    found = [(re.split(r"\{\d+\}", key), value) for key, value in _read(part).items() if "{0}" in key]
    return sorted(found, key=lambda one: -sum(map(len, one[0])))


def said(error: Exception) -> str:
    """The line of a `FeedbackError` as a sentence for the reader."""
    return sentence(message(str(error)))


def _values(line: str, parts: list[str]) -> list[str] | None:
    """What stands in `line` between `parts`; None when it is not made of them."""
    if not line.startswith(parts[0]) or not line.endswith(parts[-1]):
        return None
    values, at, end = [], len(parts[0]), len(line) - len(parts[-1])
    for part in parts[1:-1]:
        found = line.find(part, at, end)
        if found < 0:
            return None
        values.append(line[at:found])
        at = found + len(part)
    return [*values, line[at:end]] if at <= end else None


# --- times, in the reader's zone ---


def here(at: datetime) -> datetime:
    """`at` in the reader's zone."""
    return at.astimezone(ZoneInfo(reader().zone))


def moment(at: datetime) -> str:
    """Day and minute, `2026-11-22 18:03`; with UTC behind it where the reader's zone is not known."""
    return f"{here(at):%Y-%m-%d} {clock(at)}"


def day(at: datetime) -> str:
    """The day, `2026-11-22`."""
    return f"{here(at):%Y-%m-%d}"


def clock(at: datetime) -> str:
    """The minute, `18:03`; with UTC behind it where the reader's zone is not known."""
    return f"{here(at):%H:%M}" + (" UTC" if reader().zone == "UTC" else "")
