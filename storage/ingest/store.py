"""A batch of import records into the tables: a few look-ups and bulk inserts a table, however many records.

`storage.annotations.record_imported` is the path for one judgement; at some ten statements each it would take minutes
where this takes seconds. Both leave the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from storage.enums import AnnotationStatus, CompletionOrigin, ItemKind, ItemStatus
from storage.errors import Invalid
from storage.ingest.bulk import insert_all, insert_missing, look_up, look_up_pairs
from storage.ingest.identity import fingerprint, imported_users, source_key
from storage.ingest.records import Judgement, Record
from storage.models import (
    Annotation,
    Completion,
    Criterion,
    Critique,
    Item,
    ItemCompletion,
    Preference,
    Project,
    Prompt,
    Ranking,
    Rating,
    Refinement,
    utc_now,
)
from storage.one_row import table_of
from storage.prompts import content_hash, split_of, text_hash
from storage.webhooks import WebhookEvent, announce


class Stored(NamedTuple):
    """What a batch added, and why records added nothing."""

    prompts: int = 0
    completions: int = 0
    pairs: int = 0
    ratings: int = 0
    critiques: int = 0
    refinements: int = 0
    annotations: int = 0
    skipped: Mapping[str, int] = MappingProxyType({})
    project_created: bool = False
    added: frozenset[int] = frozenset()  # numbers of the records that added something
    clashing: frozenset[int] = frozenset()  # and of those with a judgement that its annotator had made differently


class _Work(NamedTuple):
    """A judgement with the ids of its record's rows."""

    record: int
    judgement: Judgement
    prompt_id: int
    completion_ids: tuple[int, ...]
    user_id: int
    source_key: str

    @property
    def item_key(self) -> tuple[int, str]:
        return self.prompt_id, fingerprint(self.kind, self.shown_ids)

    @property
    def kind(self) -> ItemKind:
        if len(self.judgement.shown) == 1:
            return ItemKind.SINGLE
        return ItemKind.RANKING if self.judgement.ranks and len(self.judgement.shown) > 2 else ItemKind.PAIR

    @property
    def shown_ids(self) -> list[int]:
        return [self.completion_ids[n] for n in self.judgement.shown]


def write_batch(session: Session, project: Project, records: Sequence[Record], format: str) -> Stored:
    """Add what is not there yet; a judgement is there when its source key is, or its annotator judged the item."""
    new: set[int] = set()  # numbers of the records that added something
    prompt_ids, prompts = _prompts(session, project, records, format, new)
    completion_ids, completions = _completions(session, records, prompt_ids, new)
    users = imported_users(session, format, {j.annotator for record in records for j in record.judgements})
    work = [
        _Work(
            number,
            judgement,
            prompt_ids[number],
            tuple(completion_ids[prompt_ids[number], text_hash(text)] for text in record.completions),
            users[judgement.annotator],
            source_key(project, format, record, judgement),
        )
        for number, record in enumerate(records)
        for judgement in record.judgements
    ]
    fresh, clashing = _sorted_out(session, work, new)
    skipped = Counter(
        "judged differently before by the same annotator" if number in clashing else "already there"
        for number in range(len(records))
        if number in clashing or number not in new
    )
    return _annotate(session, project, fresh, completion_ids)._replace(
        prompts=prompts,
        completions=completions,
        skipped=dict(skipped),
        added=frozenset(new),
        clashing=frozenset(clashing),
    )


def _prompts(
    session: Session, project: Project, records: Sequence[Record], format: str, new: set[int]
) -> tuple[list[int], int]:
    """The prompt's id of each record, and how many were added."""
    hashes = [content_hash(record.messages) for record in records]
    find = select(Prompt.content_hash, Prompt.id).where(Prompt.project_id == project.id)
    present = look_up(session, find, Prompt.content_hash, set(hashes))
    missing: dict[str, dict[str, Any]] = {}
    for number, (digest, record) in enumerate(zip(hashes, records, strict=True)):
        if digest not in present and digest not in missing:
            new.add(number)
            missing[digest] = {
                "project_id": project.id,
                "content_hash": digest,
                "messages": record.messages,
                "source": f"import:{format}",
                "split": split_of(digest),
            }
    if missing:
        insert_missing(session, Prompt, missing.values())
        present |= look_up(session, find, Prompt.content_hash, missing)
    return [present[digest] for digest in hashes], len(missing)


_CompletionKey = tuple[int, str]  # prompt id, hash of the text


def _completions(
    session: Session, records: Sequence[Record], prompt_ids: Sequence[int], new: set[int]
) -> tuple[dict[_CompletionKey, int], int]:
    """The id of each text under its prompt, refinements too, and how many were added beside refinements."""
    wanted: dict[_CompletionKey, tuple[int, str, CompletionOrigin]] = {}
    for number, (record, prompt_id) in enumerate(zip(records, prompt_ids, strict=True)):
        for text in record.completions:
            wanted.setdefault((prompt_id, text_hash(text)), (number, text, CompletionOrigin.IMPORTED))
        for _, text in _refinements(record):
            wanted.setdefault((prompt_id, text_hash(text)), (number, text, CompletionOrigin.REFINEMENT))
    key = Completion.prompt_id, Completion.content_hash
    find = select(Completion.prompt_id, Completion.content_hash, Completion.id)
    present = look_up_pairs(session, find, key, wanted)
    missing = {where: what for where, what in wanted.items() if where not in present}
    if missing:
        insert_missing(
            session,
            Completion,
            (
                {"prompt_id": prompt_id, "content_hash": digest, "text": text, "origin": origin}
                for (prompt_id, digest), (_, text, origin) in missing.items()
            ),
        )
        present |= look_up_pairs(session, find, key, missing)
        new.update(number for number, _, _ in missing.values())
    return present, sum(origin is CompletionOrigin.IMPORTED for _, _, origin in missing.values())


def _refinements(record: Record) -> Iterable[tuple[int, str]]:
    return (refinement for judgement in record.judgements for refinement in judgement.refinements)


def _sorted_out(session: Session, work: Sequence[_Work], new: set[int]) -> tuple[list[_Work], set[int]]:
    """The judgements to add, and the records of which one clashes with what its annotator said before."""
    known = set(look_up(session, select(Annotation.source_key, Annotation.id), Annotation.source_key, _keys(work)))
    items = _items(session, work)
    live = select(Annotation.item_id, Annotation.user_id, Annotation.id).where(
        Annotation.superseded_at.is_(None), Annotation.withdrawn_at.is_(None)
    )
    judged = set(look_up(session, live, Annotation.item_id, items.values()))
    places = {item_id: key for key, item_id in items.items()}
    taken = {(places[item_id], user_id) for item_id, user_id in judged}
    fresh, clashing = [], set()
    for piece in work:
        if piece.source_key in known:
            continue
        known.add(piece.source_key)
        if (piece.item_key, piece.user_id) in taken:
            clashing.add(piece.record)
            continue
        taken.add((piece.item_key, piece.user_id))
        new.add(piece.record)
        fresh.append(piece)
    return fresh, clashing


def _keys(work: Sequence[_Work]) -> set[str]:
    return {piece.source_key for piece in work}


def _items(session: Session, work: Iterable[_Work]) -> dict[_CompletionKey, int]:
    """The ids of the items that are there, by prompt and fingerprint."""
    find = select(Item.prompt_id, Item.fingerprint, Item.id)
    return look_up_pairs(session, find, (Item.prompt_id, Item.fingerprint), {piece.item_key for piece in work})


def _add_items(session: Session, project: Project, work: Sequence[_Work]) -> dict[_CompletionKey, int]:
    """The item of each judgement; new ones are done from the start: nobody is asked to judge them again."""
    present = _items(session, work)
    missing = {piece.item_key: piece for piece in work if piece.item_key not in present}
    if missing:
        insert_missing(
            session,
            Item,
            (
                {
                    "project_id": project.id,
                    "prompt_id": prompt_id,
                    "kind": piece.kind,
                    "status": ItemStatus.DONE,
                    "fingerprint": fingerprint,
                }
                for (prompt_id, fingerprint), piece in missing.items()
            ),
        )
        present |= _items(session, missing.values())
        insert_missing(
            session,
            ItemCompletion,
            (
                {"item_id": present[key], "position": position, "completion_id": completion_id}
                for key, piece in missing.items()
                for position, completion_id in enumerate(piece.shown_ids)
            ),
        )
    return present


def _annotate(
    session: Session, project: Project, work: Sequence[_Work], completion_ids: dict[_CompletionKey, int]
) -> Stored:
    """Write the judgements; how many rows of each kind."""
    if not work:
        return Stored()
    items = _add_items(session, project, work)
    now = utc_now()
    annotations = [
        {
            "item_id": items[piece.item_key],
            "user_id": piece.user_id,
            "status": AnnotationStatus.SUBMITTED,
            "source_key": piece.source_key,
            "submitted_at": now,
        }
        for piece in work
    ]
    # Not RETURNING in the rows' order: SQLite can only do that row by row.
    insert_all(session, Annotation, annotations)
    ids = look_up(session, select(Annotation.source_key, Annotation.id), Annotation.source_key, _keys(work))
    made = [(ids[piece.source_key], piece) for piece in work]
    judged = Counter(row["item_id"] for row in annotations)
    session.connection().execute(
        update(table_of(Item)).where(Item.id == bindparam("item")).values(judged=Item.judged + bindparam("more")),
        [{"item": item_id, "more": more} for item_id, more in judged.items()],
    )
    insert_all(session, Preference, (row for one, piece in made if (row := _preference(one, piece))))
    ratings = [*_thumbs(session, project, made), *_ratings(project, made)]
    critiques = [row for one, piece in made for row in _critiques(one, piece)]
    refinements = [row for one, piece in made for row in _refined(one, piece, completion_ids)]
    insert_all(session, Ranking, (row for one, piece in made for row in _ranks(one, piece)))
    insert_all(session, Rating, ratings)
    insert_all(session, Critique, critiques)
    insert_all(session, Refinement, refinements)
    told = {"action": "imported", "annotations": sorted(ids.values()), "count": len(ids)}
    announce(session, project.id, WebhookEvent.ANNOTATION, told)
    return Stored(
        pairs=len({piece.item_key for piece in work if piece.judgement.outcome is not None}),
        ratings=len(ratings),
        critiques=len(critiques),
        refinements=len(refinements),
        annotations=len(annotations),
    )


def _preference(annotation_id: int, piece: _Work) -> dict[str, Any] | None:
    if piece.judgement.outcome is None:
        return None
    first, second = piece.shown_ids[:2]
    outcome = piece.judgement.outcome
    return {
        "annotation_id": annotation_id,
        "first_id": first,
        "second_id": second,
        "outcome": outcome,
        "strength": piece.judgement.strength,
    }


def _ranks(annotation_id: int, piece: _Work) -> Iterable[dict[str, Any]]:
    for number, rank in piece.judgement.ranks:
        yield {"annotation_id": annotation_id, "completion_id": piece.completion_ids[number], "rank": rank}


def _critiques(annotation_id: int, piece: _Work) -> Iterable[dict[str, Any]]:
    for mark in piece.judgement.critiques:
        yield {
            "annotation_id": annotation_id,
            "completion_id": piece.completion_ids[mark.completion],
            "text": mark.text,
            "span_start": mark.start,
            "span_end": mark.end,
            "tags": list(mark.tags),
            "fix": mark.fix,
        }


def _refined(annotation_id: int, piece: _Work, completion_ids: dict[_CompletionKey, int]) -> Iterable[dict[str, Any]]:
    for number, text in piece.judgement.refinements:
        yield {
            "annotation_id": annotation_id,
            "completion_id": piece.completion_ids[number],
            "refined_id": completion_ids[piece.prompt_id, text_hash(text)],
        }


def _thumbs(session: Session, project: Project, made: Sequence[tuple[int, _Work]]) -> list[dict[str, Any]]:
    marks = [(one, piece, mark) for one, piece in made for mark in piece.judgement.thumbs]
    if not marks:
        return []
    criterion_id = _thumb_criterion(session, project)
    return [
        {
            "annotation_id": one,
            "completion_id": piece.completion_ids[number],
            "criterion_id": criterion_id,
            "value": int(up),
        }
        for one, piece, (number, up) in marks
    ]


def _ratings(project: Project, made: Sequence[tuple[int, _Work]]) -> list[dict[str, Any]]:
    """Values on the project's own scales; raises `Invalid` for a criterion or a value that these do not have."""
    scales = {criterion.name: criterion for criterion in project.criteria}
    for _, piece in made:
        for _, name, value in piece.judgement.ratings:
            if name not in scales or not scales[name].low <= value <= scales[name].high:
                raise Invalid(
                    f"a rating of {value} on '{name}' fits no criterion of project '{project.name}': add it, with its "
                    "scale, on the Project page and import again"
                )
    return [
        {
            "annotation_id": one,
            "completion_id": piece.completion_ids[number],
            "criterion_id": scales[name].id,
            "value": value,
        }
        for one, piece in made
        for number, name, value in piece.judgement.ratings
    ]


def _thumb_criterion(session: Session, project: Project) -> int:
    """The criterion "thumb", 0 or 1, made for the project when a file first needs it."""
    own = Criterion.project_id == project.id
    found = session.scalar(select(Criterion.id).where(own, Criterion.name == "thumb"))
    if found is not None:
        return found
    last = session.scalar(select(func.max(Criterion.position)).where(own))
    thumb = Criterion(
        project_id=project.id,
        name="thumb",
        description="Thumb up (1) or down (0).",
        low=0,
        high=1,
        position=0 if last is None else last + 1,
    )
    session.add(thumb)
    session.flush()
    session.expire(project, ["criteria"])
    return thumb.id
