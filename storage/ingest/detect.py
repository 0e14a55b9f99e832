"""Import formats by name, and which of them a row's columns belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from storage.errors import Invalid
from storage.ingest import (
    annotation_bundles,
    fine_grained,
    hh_rlhf,
    pandalm,
    plain_prompts,
    sharegpt,
    trl_preference,
    trl_prompt_completion,
    trl_unpaired,
)
from storage.ingest.records import Record, Row

Parser = Callable[[Row], Record]

FORMATS: dict[str, Parser] = {
    "prompts": plain_prompts.parse,
    "preference": trl_preference.parse,
    "unpaired": trl_unpaired.parse,
    "prompt-completion": trl_prompt_completion.parse,
    "hh-rlhf": hh_rlhf.parse,
    "sharegpt": sharegpt.parse,
    "fgrlhf": fine_grained.parse,
    "pandalm": pandalm.parse,
    "annotations": annotation_bundles.parse,
}

# The first whose columns are all there wins: those that say more come first.
_COLUMNS = (
    ("fgrlhf", {"question", "prediction 1", "prediction 2", "preference"}),
    ("annotations", {"prompt", "completions", "preferences", "critiques"}),
    ("pandalm", {"instruction", "response1", "response2"}),
    ("sharegpt", {"conversations", "chosen", "rejected"}),
    ("preference", {"chosen", "rejected"}),
    ("unpaired", {"prompt", "completion", "label"}),
    ("prompt-completion", {"prompt", "completion"}),
    ("prompts", {"prompt"}),
)


def parser_of(name: str) -> Parser:
    """The parser of a format; raises `Invalid`, naming the known ones."""
    if name not in FORMATS:
        raise Invalid(f"unknown import format '{name}'; choose from: auto, {', '.join(FORMATS)}")
    return FORMATS[name]


def detect(row: Row) -> str | None:
    """The name of the format that the row's columns are of, or None."""
    for name, columns in _COLUMNS:
        if columns <= row.keys():
            if name == "preference" and not row.get("prompt") and hh_rlhf.is_dialogue(row["chosen"]):
                return "hh-rlhf"
            return name
    return None


def unknown_columns(path: Path, columns: list[str]) -> Invalid:
    """The error for a file in no known format."""
    shown = ", ".join(f"'{name}'" for name in columns[:12]) or "none"
    return Invalid(f"{path}: no known format has these columns: {shown}; give the format: {', '.join(FORMATS)}")
