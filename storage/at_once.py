"""A submitted judgement written by one statement, on PostgreSQL.

There each statement costs a message to the server and back, more than the writing of a row: one for the annotation, one
for each kind of thing that is said, the item and the assignment would be most of what a submit takes. SQLite has no
statement that writes into several tables, and needs none (`storage.annotations` writes one by one there).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from storage.enums import AnnotationStatus, AssignmentStatus, ItemStatus
from storage.models import Annotation, Assignment, Item, utc_now
from storage.submissions import Submission


def write_submitted(
    session: Session,
    assignment: Assignment,
    item: Item,
    said: Submission,
    closed: AssignmentStatus,
    done: bool,
    *,
    draft: int | None,
    **values: Any,
) -> Annotation:
    """Store an annotation with all that was `said` (but refinements), count it on its item, close its assignment.

    `draft` is the number of the annotation that is there as a draft; `values` are its status, submitted_at,
    seconds_spent and gold_score. The caller holds the locks of item and assignment; the objects show what is in the
    store afterwards.
    """
    judged = item.judged + (values["status"] is AnnotationStatus.SUBMITTED)
    state = ItemStatus.DONE if done else item.status
    asked = {
        **values,
        "status": values["status"].value,
        "annotation": draft,
        "created": utc_now(),
        "item": item.id,
        "user": assignment.user_id,
        "assignment": assignment.id,
        "judged": judged,
        "state": state.value,
        "closed": closed.value,
        "said": _packed(said),
    }
    statement = _NEW if draft is None else _OF_DRAFT
    number = session.connection().execute(statement, asked).scalar_one()
    whose = {"item_id": item.id, "user_id": assignment.user_id, "assignment_id": assignment.id}
    annotation = session.identity_map.get(identity_key(Annotation, number))
    if annotation is None:
        annotation = Annotation(id=number, **whose, **values)
        make_transient_to_detached(annotation)
        session.add(annotation)
    _show(annotation, draft=None, **whose, **values)
    _show(item, judged=judged, status=state)
    _show(assignment, status=closed, closed_at=values["submitted_at"])
    return annotation


def _show(row: Annotation | Assignment | Item, **values: Any) -> None:
    for name, value in values.items():
        set_committed_value(row, name, value)


def _packed(said: Submission) -> str:
    """What is said as the statement unpacks it: the fields are the columns."""
    rows: dict[str, Sequence[object]] = {
        "ratings": said.ratings,
        "preferences": [said.preference] if said.preference else [],
        "rankings": said.rankings,
        "critiques": said.critiques,
    }
    return json.dumps({name: [vars(one) for one in ones] for name, ones in rows.items() if ones})


_WRITE_ALL = """, rated AS (
    INSERT INTO ratings (annotation_id, completion_id, criterion_id, value)
    SELECT said.id, one.* FROM said, json_to_recordset(CAST(:said AS json) -> 'ratings')
        AS one (completion_id int, criterion_id int, value int)
), preferred AS (
    INSERT INTO preferences (annotation_id, first_id, second_id, outcome, strength)
    SELECT said.id, one.* FROM said, json_to_recordset(CAST(:said AS json) -> 'preferences')
        AS one (first_id int, second_id int, outcome text, strength int)
), ranked AS (
    INSERT INTO rankings (annotation_id, completion_id, rank)
    SELECT said.id, one.* FROM said, json_to_recordset(CAST(:said AS json) -> 'rankings')
        AS one (completion_id int, rank int)
), criticised AS (
    INSERT INTO critiques (annotation_id, completion_id, text, span_start, span_end, tags, fix)
    SELECT said.id, one.* FROM said, json_to_recordset(CAST(:said AS json) -> 'critiques')
        AS one (completion_id int, text text, span_start int, span_end int, tags json, fix text)
), counted AS (
    UPDATE items SET judged = :judged, status = :state WHERE id = :item
), closed AS (
    UPDATE assignments SET status = :closed, closed_at = :submitted_at WHERE id = :assignment
) SELECT id FROM said"""


def _written(first: str) -> TextClause:
    return text(f"WITH said AS ({first} RETURNING id){_WRITE_ALL}")


_NEW = _written(
    """INSERT INTO annotations
        (item_id, user_id, assignment_id, status, seconds_spent, gold_score, created_at, submitted_at)
    VALUES (:item, :user, :assignment, :status, :seconds_spent, :gold_score, :created, :submitted_at)"""
)
_OF_DRAFT = _written(
    """UPDATE annotations SET draft = NULL, assignment_id = :assignment, status = :status, submitted_at = :submitted_at,
        seconds_spent = :seconds_spent, gold_score = :gold_score
    WHERE id = :annotation"""
)
