"""Gold items from a file: JSON lines that say what is right, of items that are there or that come with it.

    {"item": 12, "better": 1, "tie_allowed": true, "explanation": "It gives the date."}
    {"prompt": "Where is it?", "completions": ["Here.", "?"], "better": 1, "ratings": [{"quality": 5}, {"quality": 1}],
     "tolerance": 1, "tags": [[], ["vague"]], "explanation": "…"}

Completions are named by their place, the first is 1: `better` is one of them, "tie" or "both_bad"; `ratings`, `ranking`
(1 is the best, equal ones are ties) and `tags` hold one entry a completion. `kind` is pair, single or ranking, by
default what the number of completions says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import gold
from storage.configs import Settings, parse
from storage.enums import CompletionOrigin, ItemKind
from storage.errors import FeedbackError, Invalid
from storage.gold import GoldComparison, GoldRank, GoldRating, GoldTag, Standard
from storage.items import add_item
from storage.models import Item, ItemCompletion, Message, Project, User
from storage.prompts import add_completion, add_prompt

_KINDS = {1: ItemKind.SINGLE, 2: ItemKind.PAIR}


class _Line(Settings):
    item: int | None = None
    prompt: str | list[Message] | None = None
    completions: list[str] = Field(default_factory=list)
    kind: ItemKind | None = None
    better: int | str | None = None
    tie_allowed: bool = False
    ratings: list[dict[str, int]] = Field(default_factory=list)
    tolerance: int = 0
    ranking: list[int] = Field(default_factory=list)
    tags: list[list[str]] = Field(default_factory=list)
    explanation: str = ""


def import_gold(
    session: Session, project: Project, lines: Iterable[str], who: User | None, **detail: Any
) -> list[Item]:
    """Mark every item of the file; raises `Invalid` that names the line, and then the caller must keep nothing."""
    made = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            made.append(_mark(session, project, _read(text), who, detail))
        except FeedbackError as error:
            raise Invalid(f"line {number}: {error}") from error
    if not made:
        raise Invalid("the file holds no line; write one JSON object a line")
    return made


def _read(text: str) -> _Line:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid("this is not JSON") from error
    if not isinstance(values, dict):
        raise Invalid("this is not a JSON object")
    return parse(_Line, values)


def _mark(session: Session, project: Project, line: _Line, who: User | None, detail: dict[str, Any]) -> Item:
    if (line.item is None) == (line.prompt is None):
        raise Invalid("give either 'item', or 'prompt' and 'completions'")
    item = gold.find_item(session, project, line.item) if line.item is not None else _add(session, project, line)
    members = list(
        session.scalars(
            select(ItemCompletion.completion_id)
            .where(ItemCompletion.item_id == item.id)
            .order_by(ItemCompletion.position)
        )
    )
    return gold.mark(session, item, _standard(project, line, members), who, **detail)


def _add(session: Session, project: Project, line: _Line) -> Item:
    messages = [{"role": "user", "content": line.prompt}] if isinstance(line.prompt, str) else line.prompt
    prompt = add_prompt(session, project, messages or [], "gold").row
    written = [add_completion(session, prompt, text, CompletionOrigin.IMPORTED).row for text in line.completions]
    return add_item(session, prompt, written, line.kind or _KINDS.get(len(written), ItemKind.RANKING)).row


def _standard(project: Project, line: _Line, members: list[int]) -> Standard:
    criteria = {one.name: one.id for one in project.criteria}
    ratings = []
    for completion_id, values in _each(line.ratings, members, "ratings"):
        for name, value in values.items():
            if name not in criteria:
                raise Invalid(f"there is no criterion '{name}'; there are: {', '.join(criteria)}")
            ratings.append(
                {
                    "completion_id": completion_id,
                    "criterion_id": criteria[name],
                    "value": value,
                    "tolerance": line.tolerance,
                }
            )
    tags = [(completion_id, tag) for completion_id, given in _each(line.tags, members, "tags") for tag in given]
    ranks = _each(line.ranking, members, "ranking")
    return Standard(
        comparison=_comparison(line, members),
        ratings=tuple(parse(GoldRating, rating) for rating in ratings),
        ranking=tuple(parse(GoldRank, {"completion_id": completion_id, "rank": rank}) for completion_id, rank in ranks),
        tags=tuple(GoldTag(completion_id=completion_id, tag=tag) for completion_id, tag in tags),
        explanation=gold.cleaned(line.explanation),
    )


def _each(given: list[Any], members: list[int], name: str) -> list[tuple[int, Any]]:
    if given and len(given) != len(members):
        raise Invalid(f"'{name}' has {len(given)} entries; there are {len(members)} completions")
    return list(zip(members, given, strict=False))


def _comparison(line: _Line, members: list[int]) -> GoldComparison | None:
    if line.better is None:
        return None
    if line.better in ("tie", "both_bad"):
        return GoldComparison(both_bad=line.better == "both_bad", tie_allowed=line.tie_allowed)
    if isinstance(line.better, str) or not 1 <= line.better <= len(members):
        raise Invalid(f'\'better\' is a number from 1 to {len(members)}, "tie" or "both_bad" (got {line.better!r})')
    return GoldComparison(better=members[line.better - 1], tie_allowed=line.tie_allowed)
