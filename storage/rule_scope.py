"""Where a rule holds, and how rules enter the system prompt: the one place where every job's messages get them.

A scope is what a person can read, edit and test: phrases of which one stands in what the user wrote, and sources of
which the prompt comes from one. Where nothing is said, everything is in scope.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pydantic import field_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.configs import Settings, parse
from storage.enums import RuleState
from storage.models import CompletionRule, Message, Project, Prompt, Rule, RuleRevision

MOST_PHRASES, LONGEST_PHRASE = 50, 200
# What a rule does while it stands so.
PROMPTED = (RuleState.ON,)
TRAINED = (RuleState.ON, RuleState.LEARNED)


class RuleScope(Settings):
    """Which prompts a rule is about; with phrases and sources, both must fit."""

    phrases: tuple[str, ...] = ()  # one of them stands in a message of the user; upper and lower case are the same
    sources: tuple[str, ...] = ()  # the prompt's source is one of them

    @field_validator("phrases", "sources")
    @classmethod
    def _short_and_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        cleaned = tuple(dict.fromkeys(one.strip() for one in value if one.strip()))
        if len(cleaned) > MOST_PHRASES or any(len(one) > LONGEST_PHRASE for one in cleaned):
            raise ValueError(f"at most {MOST_PHRASES} of at most {LONGEST_PHRASE} characters")
        return cleaned

    @property
    def everywhere(self) -> bool:
        """Whether every prompt is in scope."""
        return not self.phrases and not self.sources


Matcher = Callable[[Sequence[Message], str], bool]


def matcher(scope: RuleScope) -> Matcher:
    """`fits(messages, source)`: whether a prompt is in scope."""
    pattern = re.compile("|".join(map(_whole, scope.phrases)), re.IGNORECASE) if scope.phrases else None
    sources = frozenset(scope.sources)

    def fits(messages: Sequence[Message], source: str) -> bool:
        if sources and source not in sources:
            return False
        return pattern is None or any(pattern.search(one["content"]) for one in messages if one["role"] == "user")

    return fits


def _whole(phrase: str) -> str:
    """A pattern for `phrase` as whole words; where no letters stand side by side (Chinese), anywhere."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    before = r"(?<![A-Za-z0-9])" if _latin(phrase[0]) else ""
    after = r"(?![A-Za-z0-9])" if _latin(phrase[-1]) else ""
    return f"{before}{words}{after}"


def _latin(character: str) -> bool:
    return character.isascii() and character.isalnum()


class Applied(NamedTuple):
    """A prompt as a model gets it, and the rules in it as (id, revision)."""

    messages: list[Message]
    rules: list[list[int]]


class RuleBook:
    """Rules with their scopes, in the order in which they enter the system prompt."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = list(rules)
        self._fits = [matcher(parse(RuleScope, rule.current.scope)) for rule in self.rules]

    def __bool__(self) -> bool:
        return bool(self.rules)

    def in_scope(self, messages: Sequence[Message], source: str) -> list[Rule]:
        """The rules that hold for a prompt."""
        return [rule for rule, fits in zip(self.rules, self._fits, strict=True) if fits(messages, source)]

    def apply(self, messages: Sequence[Message], source: str) -> Applied:
        """`messages` with the rules that hold in their system message, behind what stands there; a copy."""
        held = self.in_scope(messages, source)
        copied = [dict(message) for message in messages]
        if not held:
            return Applied(copied, [])
        told = "\n".join(rule.current.instruction for rule in held)
        if copied and copied[0]["role"] == "system":
            copied[0]["content"] = f"{copied[0]['content']}\n\n{told}"
        else:
            copied.insert(0, {"role": "system", "content": told})
        return Applied(copied, [[rule.id, rule.current.number] for rule in held])


def rule_book(session: Session, project: Project, states: Sequence[RuleState] = PROMPTED) -> RuleBook:
    """The project's rules that stand in one of `states`; those in the system prompt unless told otherwise."""
    query = select(Rule).where(Rule.project_id == project.id, Rule.state.in_(states))
    return RuleBook(session.scalars(query.order_by(Rule.position, Rule.id)))


def note_rules(session: Session, completion_id: int, rules: Sequence[Sequence[int]]) -> None:
    """Note under which rules, as (id, revision), a completion that was just stored was written."""
    session.add_all(CompletionRule(completion_id=completion_id, rule_id=one, revision=two) for one, two in rules)
    session.flush()


def rules_behind(session: Session, completion_id: int) -> list[RuleRevision]:
    """What stood in the system prompt, beside the prompt's own, when a completion was written."""
    query = (
        select(RuleRevision)
        .join(
            CompletionRule,
            (CompletionRule.rule_id == RuleRevision.rule_id) & (CompletionRule.revision == RuleRevision.number),
        )
        .where(CompletionRule.completion_id == completion_id)
        .order_by(RuleRevision.rule_id)
    )
    return list(session.scalars(query))


class Fitting(NamedTuple):
    """How many prompts of a project a scope fits, and the newest of them."""

    matched: int
    prompts: int
    examples: list[str]  # the last message of each


def fitting(session: Session, project: Project, scope: RuleScope, examples: int = 5) -> Fitting:
    """Try a scope on the project's prompts; reads each of them once."""
    fits, found, matched, read = matcher(scope), list[str](), 0, 0
    rows: Any = session.execute(
        select(Prompt.messages, Prompt.source)
        .where(Prompt.project_id == project.id)
        .order_by(Prompt.id.desc())
        .execution_options(yield_per=1000)
    )
    for messages, source in rows:
        read += 1
        if fits(messages, source):
            matched += 1
            if len(found) < examples:
                found.append(messages[-1]["content"])
    return Fitting(matched, read, found)
