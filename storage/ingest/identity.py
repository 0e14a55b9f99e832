"""By what a judgement of a file or program is known again: its annotator, its item and what it says."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.accounts import create_user, disable_user, find_user
from storage.enums import ItemKind, Role
from storage.ingest.bulk import look_up
from storage.ingest.records import Judgement, Record
from storage.models import Project, User
from storage.prompts import content_hash, text_hash


def imported_user(session: Session, format: str, annotator: str) -> int:
    """The disabled user who stands for a file's annotator."""
    name = f"import:{format}:{annotator}" if annotator else f"import:{format}"
    user = find_user(session, name)
    if user is None:
        user = create_user(session, name, Role.ANNOTATOR)
        disable_user(session, user)
    return user.id


def imported_users(session: Session, format: str, annotators: Collection[str]) -> dict[str, int]:
    """The disabled users who stand for several annotators, by the annotators' names."""
    names = {one: (f"import:{format}:{one}" if one else f"import:{format}").strip() for one in annotators}
    known = look_up(
        session, select(User.name, User.id), User.name, [one for one in names.values() if one.isprintable()]
    )
    return {one: known.get(name) or imported_user(session, format, one) for one, name in sorted(names.items())}


def fingerprint(kind: ItemKind, completion_ids: Iterable[int]) -> str:
    """Of an item, as `storage.items.add_item` makes it: generating the same pair later finds this one."""
    return text_hash(f"{kind}:{','.join(map(str, sorted(completion_ids)))}")


def source_key(project: Project, format: str, record: Record, judgement: Judgement) -> str:
    """Hash of everything the judgement says, by content: the same record of the same file gives the same key."""
    said: list[Any] = [
        project.id,
        format,
        judgement.annotator,
        content_hash(record.messages),
        [text_hash(record.completions[number]) for number in judgement.shown],
        judgement.outcome,
        judgement.thumbs,
        [(mark.completion, mark.text, mark.start, mark.end, mark.tags) for mark in judgement.critiques],
        judgement.refinements,
    ]
    # Behind the rest, and only where there is some: records that were imported before keep their keys.
    more = [judgement.strength, judgement.ratings, [mark.fix for mark in judgement.critiques]]
    if judgement.strength or judgement.ratings or any(mark.fix for mark in judgement.critiques):
        said.append(more)
    if judgement.ranks:
        said.append(["ranks", judgement.ranks])
    return text_hash(json.dumps(said, ensure_ascii=True))
