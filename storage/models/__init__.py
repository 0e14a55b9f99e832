"""Every table. Rows are typed; JSON columns carry plain lists and dicts; times are UTC and aware."""

from storage.models.base import Base, JsonObject, Message, UtcDateTime, utc_now
from storage.models.feedback import (
    Annotation,
    Critique,
    Preference,
    Ranking,
    Rating,
    Refinement,
    RefinementCritique,
    Resolution,
)
from storage.models.outside import ApiRequest, ApiToken, Webhook, WebhookDelivery
from storage.models.people import AuditEvent, Identity, OneTimeLink, ProjectMember, User, UserSession
from storage.models.playground import Conversation
from storage.models.standing import Standing
from storage.models.training import (
    CompletionScore,
    Evaluation,
    ModelVersion,
    Promotion,
    Run,
    RunLog,
    RunMetric,
    Snapshot,
    SnapshotRow,
    SnapshotRowAnnotation,
    SnapshotRowCritique,
    SnapshotRowRefinement,
)
from storage.models.work import Assignment, Completion, Criterion, Item, ItemCompletion, Project, Prompt

__all__ = [
    "Annotation",
    "ApiRequest",
    "ApiToken",
    "Assignment",
    "AuditEvent",
    "Base",
    "Completion",
    "CompletionScore",
    "Conversation",
    "Criterion",
    "Critique",
    "Evaluation",
    "Identity",
    "Item",
    "ItemCompletion",
    "JsonObject",
    "Message",
    "ModelVersion",
    "OneTimeLink",
    "Preference",
    "Project",
    "ProjectMember",
    "Promotion",
    "Prompt",
    "Ranking",
    "Rating",
    "Refinement",
    "RefinementCritique",
    "Resolution",
    "Run",
    "RunLog",
    "RunMetric",
    "Snapshot",
    "SnapshotRow",
    "SnapshotRowAnnotation",
    "SnapshotRowCritique",
    "SnapshotRowRefinement",
    "Standing",
    "User",
    "UserSession",
    "UtcDateTime",
    "Webhook",
    "WebhookDelivery",
    "utc_now",
]
