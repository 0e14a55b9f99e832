"""What rules teach: rows of a snapshot that make a model follow a rule without being told, and only where it holds.

C3PO (arXiv 2402.10893). In scope: what was written under a rule is preferred over what the same version wrote for the
same prompt without it, and the rule is not in the prompt, so that it goes into the weights. Out of every rule's scope:
anchors, completions of the base model that it is to go on writing; a row without a rejected completion, of which DPO's
preference term is zero and only the term of supervised learning counts. Both are on training prompts alone: what
measures a model is what people said. And what people said comes first: where they judged the two side by side or
criticised the completion under the rule, there is no row.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from storage.configs import SnapshotSettings
from storage.criticised import chunks
from storage.enums import CompletionOrigin, ModelKind, PairSource, RunKind, RunStatus, SnapshotForm, Split
from storage.erasure import ERASED_SOURCE
from storage.forms.rows import Row, RowRule, assistant
from storage.judged import live_annotation
from storage.models import (
    Annotation,
    Completion,
    CompletionRule,
    Critique,
    ItemCompletion,
    Message,
    ModelVersion,
    Project,
    Prompt,
    Rule,
    RuleCritique,
    RuleRevision,
    Run,
)
from storage.preferences import PairCounts
from storage.prompts import PLAYGROUND_SOURCE
from storage.rule_scope import TRAINED, RuleBook, rule_book


class _Under(NamedTuple):
    """A completion that was written under rules."""

    completion_id: int
    prompt_id: int
    version_id: int | None
    text: str


def with_rules(
    session: Session,
    project: Project,
    rows: Iterable[Row],
    form: SnapshotForm,
    settings: SnapshotSettings,
    counts: PairCounts,
) -> Iterator[Row]:
    """`rows` with the rules that they teach noted, and behind them, of pairs, what the rules themselves add."""
    book = rule_book(session, project, TRAINED)
    if not book:
        yield from rows
        return
    said = _said(session, book)
    sources = _sources(session, project) if any(rule.current.scope.get("sources") for rule in book.rules) else {}
    for row in rows:
        yield _marked(row, book, said, sources) if row.critiques else row
    if form is SnapshotForm.PREFERENCE and settings.use_rules and settings.rule_weight:
        taught = list(_pairs(session, project, book, settings, counts))
        yield from taught
        most = math.ceil(settings.rule_anchors * len(taught))
        yield from _anchors(session, project, book, most, counts)


def _note(rules: Iterable[Rule]) -> tuple[RowRule, ...]:
    return tuple(RowRule(rule.id, rule.current.instruction) for rule in rules)


# --- refinements that came of a rule's critiques ---


def _said(session: Session, book: RuleBook) -> dict[tuple[int, str], set[int]]:
    """The rules that a critique is behind, by the critique's completion and words: a revision keeps these."""
    rows = session.execute(
        select(Critique.completion_id, Critique.text, RuleCritique.rule_id)
        .join(RuleCritique, RuleCritique.critique_id == Critique.id)
        .where(RuleCritique.rule_id.in_([rule.id for rule in book.rules]))
    )
    found: dict[tuple[int, str], set[int]] = defaultdict(set)
    for completion_id, text, rule_id in rows:
        found[completion_id, text].add(rule_id)
    return found


def _sources(session: Session, project: Project) -> dict[int, str]:
    rows = session.execute(select(Prompt.id, Prompt.source).where(Prompt.project_id == project.id))
    return dict(rows)


def _marked(row: Row, book: RuleBook, said: dict[tuple[int, str], set[int]], sources: dict[int, str]) -> Row:
    ids = {one for critique in row.critiques for one in said.get((critique.completion_id, critique.said.text), ())}
    if not ids:
        return row
    held = book.in_scope(row.messages, sources.get(row.prompt_id, ""))
    return row._replace(rules=_note(rule for rule in held if rule.id in ids))


# --- in scope ---


def _pairs(
    session: Session, project: Project, book: RuleBook, settings: SnapshotSettings, counts: PairCounts
) -> Iterator[Row]:
    """At most one pair a prompt, in the order of the prompts' content."""
    under = _under(session, project, book)
    ids = list(under)
    bare = _bare(session, {one.prompt_id for one, _ in under.values()})
    told = _told(session, ids)
    prompts = _prompts(session, {one.prompt_id for one, _ in under.values()})
    done: set[int] = set()

    def place(found: tuple[_Under, set[int]]) -> tuple[str, int, str]:
        return prompts[found[0].prompt_id][0], -len(found[1]), found[0].text

    for one, rules in sorted(under.values(), key=place):
        digest, messages, source = prompts[one.prompt_id]
        held = [rule for rule in book.in_scope(messages, source) if rule.id in rules]
        others = [other for other in bare.get(one.prompt_id, ()) if other.version_id == one.version_id]
        if len(held) < len(rules) or one.prompt_id in done or not others:
            continue  # a rule whose scope is narrower now must not be learned here
        other = min(others, key=lambda found: found.text)
        reason = told.get(one.completion_id, {}).get(other.completion_id) or told.get(one.completion_id, {}).get(0)
        if reason is None and one.text.strip() == other.text.strip():
            reason = "same_text"
        if reason is not None:
            counts.left_out[Split.TRAIN, reason] += 1
            continue
        done.add(one.prompt_id)
        counts.used[Split.TRAIN, PairSource.RULE] += 1
        yield _row(PairSource.RULE, settings.rule_weight, one, other, digest, messages)._replace(rules=_note(held))


def _under(session: Session, project: Project, book: RuleBook) -> dict[int, tuple[_Under, set[int]]]:
    """What was written under rules of `book` alone, in the words that they have now, with the rules' ids."""
    now = {rule.id: rule.current.instruction for rule in book.rules}
    rows = session.execute(
        select(Completion.id, Completion.prompt_id, Completion.model_version_id, Completion.text,
               CompletionRule.rule_id, RuleRevision.instruction)
        .join(CompletionRule, CompletionRule.completion_id == Completion.id)
        .join(
            RuleRevision,
            (RuleRevision.rule_id == CompletionRule.rule_id) & (RuleRevision.number == CompletionRule.revision),
        )
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .where(Prompt.project_id == project.id, Prompt.split == Split.TRAIN, *_by_models())
    )  # fmt: skip
    found: dict[int, tuple[_Under, set[int]]] = {}
    others: set[int] = set()  # under something that must not be learned from them
    for completion_id, prompt_id, version_id, text, rule_id, instruction in rows:
        entry = found.setdefault(completion_id, (_Under(completion_id, prompt_id, version_id, text), set()))
        entry[1].add(rule_id)
        if instruction != now.get(rule_id):
            others.add(completion_id)
    return {one: entry for one, entry in found.items() if one not in others}


def _bare(session: Session, prompt_ids: Iterable[int]) -> dict[int, list[_Under]]:
    """What models wrote for the prompts under no rule at all."""
    found: dict[int, list[_Under]] = defaultdict(list)
    for chunk in chunks(sorted(prompt_ids)):
        rows = session.execute(
            select(Completion.id, Completion.prompt_id, Completion.model_version_id, Completion.text).where(
                Completion.prompt_id.in_(chunk), *_by_models(), _under_none()
            )
        )
        for row in rows:
            found[row[1]].append(_Under(*row))
    return found


def _told(session: Session, completion_ids: list[int]) -> dict[int, dict[int, str]]:
    """What people said of completions: by the other one "judged" side by side, under 0 that it was "criticised"."""
    found: dict[int, dict[int, str]] = defaultdict(dict)
    one, other = ItemCompletion, ItemCompletion.__table__.alias("other")
    for chunk in chunks(completion_ids):
        judged = (
            select(one.completion_id, other.c.completion_id)
            .join(other, other.c.item_id == one.item_id)
            .join(Annotation, Annotation.item_id == one.item_id)
            .where(one.completion_id.in_(chunk), other.c.completion_id != one.completion_id, live_annotation())
        )
        for this, that in session.execute(judged):
            found[this][that] = "judged"
        for this in session.scalars(_criticised().where(Critique.completion_id.in_(chunk))):
            found[this][0] = "criticised"
    return found


def _criticised() -> Any:
    return (
        select(Critique.completion_id)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .where(live_annotation())
    )


def _prompts(session: Session, prompt_ids: Iterable[int]) -> dict[int, tuple[str, list[Message], str]]:
    found: dict[int, tuple[str, list[Message], str]] = {}
    for chunk in chunks(sorted(prompt_ids)):
        rows = session.execute(
            select(Prompt.id, Prompt.content_hash, Prompt.messages, Prompt.source).where(Prompt.id.in_(chunk))
        )
        found |= {row[0]: (row[1], row[2], row[3]) for row in rows}
    return found


# --- out of scope ---


def _anchors(session: Session, project: Project, book: RuleBook, most: int, counts: PairCounts) -> Iterator[Row]:
    """Completions of the base model that nobody criticised, one a prompt, in the order of the prompts' content."""
    if not most:
        return
    rows: Any = session.execute(
        select(Completion.id, Completion.prompt_id, Completion.model_version_id, Completion.text,
               Prompt.content_hash, Prompt.messages, Prompt.source)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .join(ModelVersion, ModelVersion.id == Completion.model_version_id)
        .where(*_open_prompts(project), *_by_models(), _under_none(),
               ModelVersion.kind == ModelKind.POLICY, ModelVersion.number == 0, Completion.id.not_in(_criticised()))
        .order_by(Prompt.content_hash, Completion.content_hash)
        .execution_options(yield_per=500)
    )  # fmt: skip
    last, given = 0, 0
    for completion_id, prompt_id, version_id, text, digest, messages, source in rows:
        if prompt_id == last or book.in_scope(messages, source):
            continue
        last, given = prompt_id, given + 1
        counts.used[Split.TRAIN, PairSource.ANCHOR] += 1
        yield _row(PairSource.ANCHOR, 1.0, _Under(completion_id, prompt_id, version_id, text), None, digest, messages)
        if given == most:
            return


def _row(
    source: PairSource, weight: float, one: _Under, other: _Under | None, digest: str, messages: list[Message]
) -> Row:
    return Row(
        split=Split.TRAIN,
        prompt_id=one.prompt_id,
        prompt_hash=digest,
        messages=messages,
        source=source,
        weight=weight,
        completion_id=one.completion_id,
        rejected_id=other.completion_id if other else None,
        annotation_ids=(),
        critiques=(),
        refinement_ids=(),
        values={
            "chosen": assistant(one.text),
            "rejected": assistant(other.text) if other else [],
            "chosen_id": one.completion_id,
            "rejected_id": other.completion_id if other else None,
        },
        hashed=("chosen", "rejected"),
    )


def _by_models() -> tuple[ColumnElement[bool], ...]:
    return Completion.origin == CompletionOrigin.MODEL, Completion.model_version_id.is_not(None), Completion.text != ""


def _under_none() -> ColumnElement[bool]:
    return ~exists().where(CompletionRule.completion_id == Completion.id)


def _open_prompts(project: Project) -> tuple[ColumnElement[bool], ...]:
    """Training prompts that anybody may write for: not what people asked in the playground."""
    return (
        Prompt.project_id == project.id,
        Prompt.split == Split.TRAIN,
        Prompt.source.not_in((PLAYGROUND_SOURCE, ERASED_SOURCE)),
    )


# --- to be written, so that there is something to learn from ---


class ToWrite(NamedTuple):
    """Prompts for which a generate run writes what rules are trained on."""

    in_scope: list[Prompt]  # once under the rules and once without
    anchors: list[Prompt]  # once without


def prompts_to_write(session: Session, project: Project, book: RuleBook, limit: int) -> ToWrite:
    """Training prompts in scope that have nothing under the rules as they are now, and as many out of every scope.

    In the order of their content, which is as good as by chance, and the same each time.
    """
    written: dict[int, list[set[int]]] = defaultdict(list)
    for one, rules in _under(session, project, book).values():
        written[one.prompt_id].append(rules)
    anchored = set(
        session.scalars(
            select(Completion.prompt_id)
            .join(ModelVersion, ModelVersion.id == Completion.model_version_id)
            .join(Prompt, Prompt.id == Completion.prompt_id)
            .where(*_open_prompts(project), _under_none(), ModelVersion.number == 0)
        )
    )
    inside: list[int] = []
    outside: list[int] = []
    have = 0
    rows: Any = session.execute(
        select(Prompt.id, Prompt.messages, Prompt.source)
        .where(*_open_prompts(project))
        .order_by(Prompt.content_hash)
        .execution_options(yield_per=1000)
    )
    for prompt_id, messages, source in rows:
        held = {rule.id for rule in book.in_scope(messages, source)}
        if held:
            inside += [] if any(held == rules for rules in written.get(prompt_id, ())) else [prompt_id]
        elif prompt_id in anchored:
            have += 1
        else:
            outside.append(prompt_id)
    inside = inside[:limit]
    missing = max(0, len(inside) + len(written) - have)
    return ToWrite(_in_order(session, inside), _in_order(session, outside[: min(limit, missing)]))


def _in_order(session: Session, ids: list[int]) -> list[Prompt]:
    rows = {row.id: row for chunk in chunks(ids) for row in session.scalars(select(Prompt).where(Prompt.id.in_(chunk)))}
    return [rows[one] for one in ids]


def rules_to_write(session: Session, project: Project) -> list[Rule]:
    """Rules in training that changed since a run last wrote what rules are trained on."""
    last = session.scalar(
        select(func.max(Run.started_at)).where(
            Run.project_id == project.id,
            Run.kind == RunKind.GENERATE,
            Run.status == RunStatus.SUCCEEDED,
            Run.config["for_rules"].as_boolean(),
        )
    )
    return [rule for rule in rule_book(session, project, TRAINED).rules if last is None or rule.changed_at > last]
