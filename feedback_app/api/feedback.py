"""Feedback of other applications: each entry becomes an import record, and takes the path that files take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from feedback_app.api.auth import Access
from feedback_app.api.door import pick
from feedback_app.api.schemas import FeedbackBatch, FeedbackGiven, Prompt
from feedback_app.handlers.context import Context
from storage.engine import translate_errors
from storage.errors import Conflict, Invalid, NotFound
from storage.idempotency import Keyed, keep_answers, kept_answers
from storage.ingest.records import CritiqueMark, Judgement, Record
from storage.ingest.store import Stored, write_batch
from storage.models import Completion, Message, Project
from storage.models import Prompt as StoredPrompt
from storage.prompts import clean_messages, storable

_AT_ONCE = 400  # completions a statement
FORMAT = "api"  # stands in prompts.source and in the names of annotators: import:api:NAME

Result = Literal["stored", "already there", "judged before"]


@dataclass(frozen=True)
class Asked:
    """One request: whose, what, and by what it is known when it comes again."""

    access: Access
    batch: FeedbackBatch
    request: Keyed | None = None


class Given(NamedTuple):
    """The answer's body, and whether it was given before."""

    answer: dict[str, Any]
    replayed: bool


def fits(chosen: Sequence[Asked], asked: Asked) -> bool:
    """Whether a request may share a transaction: not with another of the same key, and not into a long one."""
    if sum(len(one.batch.feedback) for one in chosen) + len(asked.batch.feedback) > 250:
        return False
    if asked.request is None:
        return True
    mine = asked.request[:2]
    return all(one.request is None or one.request[:2] != mine for one in chosen)


def store_together(ctx: Context, requests: Sequence[Asked]) -> list[Given]:
    """Store several requests in one transaction: all of them or, when an error is raised, none."""
    for attempt in (1, 2):
        try:
            with translate_errors(), ctx.sessions.begin() as session:
                return _store(session, requests)
        except (IntegrityError, Conflict):
            # Another process stored the same at the same moment; its rows are visible to a second look.
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


def _store(session: Session, requests: Sequence[Asked]) -> list[Given]:
    given: dict[int, Given] = {}
    kept = kept_answers(session, [asked.request for asked in requests if asked.request])
    stored_texts = _completions(session, requests)
    projects: dict[tuple[int, int | None, str | None], Project] = {}
    work: dict[int, tuple[Project, list[tuple[int, Record]]]] = {}
    for number, asked in enumerate(requests):
        access = asked.access
        if asked.request in kept:
            given[number] = Given(kept[asked.request].response, True)
            continue
        place = (access.user.id, access.project_id, asked.batch.project)
        if place not in projects:
            projects[place] = pick(session, access, asked.batch.project)
        project = projects[place]
        records = work.setdefault(project.id, (project, []))[1]
        records += [(number, record_of(session, project, entry, stored_texts)) for entry in asked.batch.feedback]
    results: dict[int, list[Result]] = {}
    for project, records in work.values():
        stored = write_batch(session, project, [record for _, record in records], FORMAT)
        for position, (number, _) in enumerate(records):
            results.setdefault(number, []).append(_result(stored, position))
    for number, told in results.items():
        given[number] = Given({"stored": told.count("stored"), "results": told}, False)
    fresh = {request: given[n].answer for n in results if (request := requests[n].request)}
    keep_answers(session, fresh)
    return [given[number] for number in range(len(requests))]


def _result(stored: Stored, position: int) -> Result:
    if position in stored.clashing:
        return "judged before"
    return "stored" if position in stored.added else "already there"


class _Text(NamedTuple):
    """A stored completion with its prompt."""

    text: str
    project_id: int
    prompt_id: int
    messages: list[Message]


def _completions(session: Session, requests: Sequence[Asked]) -> dict[int, _Text]:
    """The stored completions that the requests name, in few statements."""
    wanted = sorted({one for asked in requests for entry in asked.batch.feedback for one in entry.completion_ids or ()})
    find = select(Completion.id, Completion.text, StoredPrompt.project_id, StoredPrompt.id, StoredPrompt.messages).join(
        StoredPrompt, StoredPrompt.id == Completion.prompt_id
    )
    found: dict[int, _Text] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        for row in session.execute(find.where(Completion.id.in_(wanted[start : start + _AT_ONCE]))):
            found[row[0]] = _Text(row[1], row[2], row[3], row[4])
    return found


def record_of(session: Session, project: Project, entry: FeedbackGiven, known: Mapping[int, _Text]) -> Record:
    """The entry as an import has it; raises `Invalid` or `NotFound` when it does not fit the project."""
    if entry.completion_ids is not None:
        messages, texts = _stored_completions(project, entry.completion_ids, known)
    else:
        messages = prompt_of(session, project, entry.prompt, entry.prompt_id)
        texts = tuple(storable(text) for text in entry.completions or ())
    preference = entry.preference
    judgement = Judgement(
        shown=tuple(range(len(texts))),
        annotator=entry.annotator or "",
        outcome=preference.outcome if preference else None,
        strength=preference.strength if preference and preference.outcome in ("first", "second") else None,
        thumbs=((0, entry.thumb == "up"),) if entry.thumb else (),
        ratings=tuple((one.completion, one.criterion, one.value) for one in entry.ratings),
        critiques=tuple(
            CritiqueMark(
                one.completion,
                storable(one.text).strip(),
                *_span(one.span, texts[one.completion]),
                tags=tuple(one.tags),
                fix=storable(one.fix).strip() if one.fix else None,
            )
            for one in entry.critiques
        ),
        refinements=tuple(
            (one.completion, text)
            for one in entry.refinements
            if (text := storable(one.text).strip()) != texts[one.completion].strip()
        ),
    )
    _check_ratings(project, judgement)
    if not (judgement.outcome or judgement.thumbs or judgement.ratings or judgement.critiques or judgement.refinements):
        raise Invalid("a refinement is the same text as its completion; nothing else is said")
    return Record(messages, texts, (judgement,))


def prompt_of(session: Session, project: Project, prompt: Prompt | None, prompt_id: int | None) -> list[Message]:
    """The messages given, or those of a stored prompt of the project."""
    if isinstance(prompt, str):
        return clean_messages([{"role": "user", "content": prompt}])
    if prompt is not None:
        return clean_messages([turn.model_dump() for turn in prompt])
    found = session.get(StoredPrompt, prompt_id)
    if found is None or found.project_id != project.id:
        raise NotFound(f"the project has no prompt {prompt_id}; see: GET /api/v1/prompts")
    return found.messages


def _stored_completions(
    project: Project, ids: list[int], known: Mapping[int, _Text]
) -> tuple[list[Message], tuple[str, ...]]:
    for one in ids:
        if one not in known or known[one].project_id != project.id:
            raise NotFound(f"the project has no completion {one}; see: GET /api/v1/items")
    rows = [known[one] for one in ids]
    if len({row.prompt_id for row in rows}) > 1:
        raise Invalid("the completions are of different prompts; send one entry for each prompt")
    return rows[0].messages, tuple(row.text for row in rows)


def _span(span: tuple[int, int] | None, text: str) -> tuple[int | None, int | None]:
    if span is None:
        return None, None
    if not span[0] < span[1] <= len(text):
        raise Invalid(f"the span {list(span)} lies outside the completion's {len(text)} characters")
    return span


def _check_ratings(project: Project, judgement: Judgement) -> None:
    scales = {criterion.name: criterion for criterion in project.criteria}
    for _, name, value in judgement.ratings:
        scale = scales.get(name)
        if scale is None:
            raise Invalid(f"the project has no criterion '{name}'; choose from: {', '.join(scales) or 'none yet'}")
        if judgement.thumbs and name == "thumb":
            raise Invalid("the thumb is said twice; leave one out")
        if not scale.low <= value <= scale.high:
            raise Invalid(f"'{name}' takes whole numbers from {scale.low} to {scale.high}, got {value}")
