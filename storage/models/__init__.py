"""Every table. Rows are typed; JSON columns carry plain lists and dicts; times are UTC and aware."""

from storage.models.base import Base, JsonObject, Message, UtcDateTime, utc_now
from storage.models.feedback import Annotation, Critique, Preference, Rating, Refinement
from storage.models.people import AuditEvent, OneTimeLink, User, UserSession
from storage.models.training import (
    Evaluation,
    ModelVersion,
    Promotion,
    Run,
    RunLog,
    RunMetric,
    Snapshot,
    SnapshotRow,
    SnapshotRowAnnotation,
)
from storage.models.work import Assignment, Completion, Criterion, Item, ItemCompletion, Project, Prompt

__all__ = [
    "Annotation",
    "Assignment",
    "AuditEvent",
    "Base",
    "Completion",
    "Criterion",
    "Critique",
    "Evaluation",
    "Item",
    "ItemCompletion",
    "JsonObject",
    "Message",
    "ModelVersion",
    "OneTimeLink",
    "Preference",
    "Project",
    "Promotion",
    "Prompt",
    "Rating",
    "Refinement",
    "Run",
    "RunLog",
    "RunMetric",
    "Snapshot",
    "SnapshotRow",
    "SnapshotRowAnnotation",
    "User",
    "UserSession",
    "UtcDateTime",
    "utc_now",
]
