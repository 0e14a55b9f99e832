"""Rules in the requests of a generate run: in the system prompt of what fills the queue, and as what trains them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from storage.errors import NotEnoughData
from storage.models import ModelVersion, Project, Prompt
from storage.rule_rows import prompts_to_write
from storage.rule_scope import TRAINED, RuleBook, rule_book
from storage.rules import get_rule


def request(prompt: Prompt, versions: list[str], book: RuleBook) -> dict[str, Any]:
    """One line of requests.jsonl: the prompt under the rules of `book` that hold for it."""
    asked = book.apply(prompt.messages, prompt.source)
    row: dict[str, Any] = {"prompt_id": prompt.id, "messages": asked.messages, "versions": versions}
    if asked.rules:
        row |= {"prompt": prompt.messages, "rules": asked.rules}
    return row


def for_rules(
    session: Session, project: Project, limit: int, first: ModelVersion, base: ModelVersion | None
) -> list[dict[str, Any]]:
    """What rules are trained on: each prompt in scope under the rules and without them, and anchors out of scope.

    `first` writes what is in scope; anchors are the base model's (`base`, None: `first` is the base model, or there is
    none beside it). Raises `NotEnoughData` where no rule trains, or nothing is left to write.
    """
    book = rule_book(session, project, TRAINED)
    if not book:
        raise NotEnoughData("no rule is on; accept a suggestion or write a rule, and turn it on")
    found = prompts_to_write(session, project, book, limit)
    if not found.in_scope and not found.anchors:
        raise NotEnoughData("everything that rules are trained on is written already; add prompts to have more")
    none = RuleBook([])
    rows = [request(prompt, [first.name], one) for prompt in found.in_scope for one in (book, none)]
    writer = base or (first if first.number == 0 else None)
    return rows + [request(prompt, [writer.name], none) for prompt in found.anchors if writer is not None]


def rules_told(session: Session, project: Project, rows: Sequence[dict[str, Any]]) -> list[str]:
    """For the log: which rules stand in how many system prompts."""
    stood = Counter((rule, revision) for row in rows for rule, revision in row.get("rules", ()))
    return [
        f"rule {rule} '{get_rule(session, project, rule).name}', revision {revision}, is in the system prompt of "
        f"{n} of {len(rows)} prompts"
        for (rule, revision), n in sorted(stood.items())
    ]
