"""An item as one person sees it, read by one statement, and who else holds it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, and_, bindparam, func, literal_column, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from storage.enums import AnnotationStatus, AssignmentStatus, ItemKind
from storage.models import Annotation, Assignment, Completion, Item, ItemCompletion, JsonObject, Message, Prompt, User


class Asked(NamedTuple):
    """An item as one person sees it: what it asks, and what is there of theirs."""

    texts: dict[int, str]  # of its completions by id, in the order of their places
    messages: list[Message]
    kind: ItemKind
    assignment_id: int | None  # theirs, in whatever state
    draft: JsonObject | None
    others: int  # who hold it


def look_at(session: Session, item_id: int, user_id: int, now: datetime) -> Asked:
    """The item at this moment, in one statement."""
    rows = session.connection().execute(_LOOKED, {"item": item_id, "user": user_id, "now": now}).all()
    return Asked({row[0]: row[1] for row in rows}, *rows[0][2:])


def live_leases(session: Session, item: Item, user: User, now: datetime) -> int:
    """How many others hold the item."""
    return session.connection().scalars(_OTHERS, {"item": item.id, "user": user.id, "now": now}).one()


def is_(status: InstrumentedAttribute[Any], value: StrEnum) -> ColumnElement[bool]:
    """The column is `value`, which stands in the statement's text (see `storage.selection`)."""
    return status == literal_column(f"'{value.value}'", String)


def _leases(item_id: InstrumentedAttribute[int] | ColumnElement[int]) -> ColumnElement[int]:
    held = aliased(Assignment)  # not the person's own, which may stand beside it
    return (
        select(func.count())
        .select_from(held)
        .where(
            held.item_id == item_id,
            held.user_id != bindparam("user"),
            is_(held.status, AssignmentStatus.LEASED),
            held.expires_at > bindparam("now"),
        )
        .scalar_subquery()
    )


_OTHERS = select(_leases(bindparam("item", type_=Item.id.type)))
_LOOKED = (
    select(
        Completion.id, Completion.text, Prompt.messages, Item.kind, Assignment.id, Annotation.draft, _leases(Item.id)
    )
    .select_from(Item)
    .join(Prompt, Prompt.id == Item.prompt_id)
    .join(ItemCompletion, ItemCompletion.item_id == Item.id)
    .join(Completion, Completion.id == ItemCompletion.completion_id)
    .outerjoin(Assignment, and_(Assignment.item_id == Item.id, Assignment.user_id == bindparam("user")))
    .outerjoin(
        Annotation,
        and_(
            Annotation.item_id == Item.id,
            Annotation.user_id == bindparam("user"),
            Annotation.status == AnnotationStatus.DRAFT,
            Annotation.superseded_at.is_(None),
            Annotation.withdrawn_at.is_(None),
        ),
    )
    .where(Item.id == bindparam("item"))
    .order_by(ItemCompletion.position)
)
