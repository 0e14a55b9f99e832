"""What every table shares: the declarative base, aware UTC times, enumerations as text."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Dialect, Enum, MetaData, Text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

from storage.enums import (
    Admission,
    AnnotationStatus,
    AssignmentStatus,
    BlindTestState,
    CompletionOrigin,
    GateVerdict,
    ItemKind,
    ItemStatus,
    LinkPurpose,
    ModelKind,
    Outcome,
    PairSource,
    RefinementStatus,
    ResolutionVerdict,
    Role,
    RuleState,
    RunKind,
    RunStatus,
    SelectionReason,
    SnapshotForm,
    Split,
    TurnState,
    VersionStatus,
)

Message = dict[str, str]
JsonObject = dict[str, Any]


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on both databases (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times, store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _enum(kind: type[StrEnum]) -> Enum:
    # Stored as text, without a CHECK: a new member must not need a migration of the column type.
    return Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        length=32,
        values_callable=lambda e: [m.value for m in e],
    )


class Base(DeclarativeBase):
    """Declarative base: names every constraint, so that Alembic can find it again on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        str: Text(),
        JsonObject: JSON(),
        list[Message]: JSON(),
        list[str]: JSON(),
        list[int]: JSON(),
        **{
            kind: _enum(kind)
            for kind in (
                Admission, AnnotationStatus, AssignmentStatus, BlindTestState, CompletionOrigin, GateVerdict, ItemKind,
                ItemStatus, LinkPurpose, ModelKind, Outcome, PairSource, RefinementStatus, ResolutionVerdict, Role,
                RuleState, RunKind, RunStatus, SelectionReason, SnapshotForm, Split, TurnState, VersionStatus,
            )
        },
    }  # fmt: skip
