"""What every row of a snapshot is, whatever its form: content that is hashed, and ids that say where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.criticised import LiveCritique
from storage.enums import PairSource, Split
from storage.judged import Mark, live_marks, prompt_windows
from storage.models import Completion, Message, Project, Prompt
from storage.windows import Window, belongs

IDS = pa.list_(pa.int64())
# Columns beside the form's own.
COMMON = [
    ("source", pa.string()),
    ("weight", pa.float64()),
    ("prompt_id", pa.int64()),
    ("annotation_ids", IDS),
    ("critique_ids", IDS),
    ("refinement_ids", IDS),
    ("rule_ids", IDS),
    ("prompt_hash", pa.string()),
]


class RowRule(NamedTuple):
    """A rule that a row teaches, and what it says."""

    id: int
    instruction: str


class Row(NamedTuple):
    """One row; `values` are the form's own columns, of which those in `hashed` are content (ids are not)."""

    split: Split
    prompt_id: int
    prompt_hash: str
    messages: list[Message]
    source: PairSource
    weight: float
    completion_id: int  # chosen, where the row is a pair
    rejected_id: int | None
    annotation_ids: tuple[int, ...]
    critiques: tuple[LiveCritique, ...]  # that led to the row
    refinement_ids: tuple[int, ...]
    values: dict[str, Any]
    hashed: tuple[str, ...]
    rules: tuple[RowRule, ...] = ()

    def digest(self) -> str:
        """SHA-256 of everything that trains or says why: no ids, no times."""
        said = sorted(json.dumps(one.said) for one in self.critiques)
        content = [self.split.value, self.prompt(), *(self.values[name] for name in self.hashed)]
        whole = [*content, self.source.value, self.weight, said]
        if self.rules:
            whole.append(sorted(one.instruction for one in self.rules))
        return hashlib.sha256(json.dumps(whole, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()

    def prompt(self) -> list[Message]:
        """The prompt's messages with TRL's two keys."""
        return [{"role": message["role"], "content": message["content"]} for message in self.messages]

    def columns(self) -> dict[str, Any]:
        """The row as it stands in the file."""
        return {
            "prompt": self.prompt(),
            **self.values,
            "source": self.source.value,
            "weight": self.weight,
            "prompt_id": self.prompt_id,
            "annotation_ids": list(self.annotation_ids),
            "critique_ids": [one.id for one in self.critiques],
            "refinement_ids": list(self.refinement_ids),
            "rule_ids": [one.id for one in self.rules],
            "prompt_hash": self.prompt_hash,
        }


def assistant(text: str) -> list[Message]:
    """A completion in TRL's conversational form."""
    return [{"role": "assistant", "content": text}]


class PromptLine(NamedTuple):
    """What a row says of its prompt."""

    content_hash: str
    split: Split
    messages: list[Message]


@dataclass(frozen=True)
class Page:
    """The prompts of a window with their completions and live annotations."""

    window: Window
    marks: dict[int, Mark]
    prompts: dict[int, PromptLine]
    completions: dict[int, tuple[int, str]]  # id -> (prompt's id, text), in the order of prompts and ids

    def row(
        self,
        completion_id: int,
        source: PairSource,
        weight: float,
        values: dict[str, Any],
        hashed: tuple[str, ...],
        *,
        annotation_ids: set[int],
        critiques: dict[int, LiveCritique] | None = None,
        refinement_ids: set[int] | None = None,
    ) -> Row:
        """A row about one completion."""
        prompt_id, text = self.completions[completion_id]
        prompt = self.prompts[prompt_id]
        return Row(
            split=prompt.split,
            prompt_id=prompt_id,
            prompt_hash=prompt.content_hash,
            messages=prompt.messages,
            source=source,
            weight=round(weight, 6),
            completion_id=completion_id,
            rejected_id=None,
            annotation_ids=tuple(sorted(annotation_ids)),
            critiques=tuple(one for _, one in sorted((critiques or {}).items())),
            refinement_ids=tuple(sorted(refinement_ids or ())),
            values={"completion": assistant(text), "completion_id": completion_id, **values},
            hashed=("completion", *hashed),
        )

    def split_of(self, completion_id: int) -> Split:
        """Where the completion's prompt belongs."""
        return self.prompts[self.completions[completion_id][0]].split


def pages(session: Session, project: Project) -> Iterator[Page]:
    """The project in windows of prompts, in order; memory does not grow with it."""
    for window in prompt_windows(session, project):
        marks = live_marks(session, project, window)
        if not marks:
            continue
        in_window = belongs(Prompt.project_id, project), Prompt.id.between(*window)
        prompts = session.execute(
            select(Prompt.id, Prompt.content_hash, Prompt.split, Prompt.messages).where(*in_window)
        )
        texts = session.execute(
            select(Completion.id, Completion.prompt_id, Completion.text)
            .join(Prompt, Prompt.id == Completion.prompt_id)
            .where(*in_window, Completion.prompt_id.between(*window))
            .order_by(Completion.prompt_id, Completion.id)
        )
        lines = {row[0]: PromptLine(*row[1:]) for row in prompts}
        yield Page(window, marks, lines, {row[0]: (row[1], row[2]) for row in texts})
