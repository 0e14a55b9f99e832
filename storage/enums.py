"""Enumerations of the store. Values are what stands in SQL, JSON and exports: never rename one."""

from enum import StrEnum


class Role(StrEnum):
    """What a user may do; see `feedback_app.policies`."""

    ANNOTATOR = "annotator"
    OPERATOR = "operator"
    ADMIN = "admin"


class LinkPurpose(StrEnum):
    """Why a one-time link was issued."""

    LOGIN = "login"
    INVITE = "invite"
    RESET = "reset"


class TokenScope(StrEnum):
    """What an API token may be used for, within what its user may do."""

    READ = "read"
    WRITE = "write"
    EXPORT = "export"


class Split(StrEnum):
    """The part of the data a prompt belongs to for ever; see `storage.prompts.split_of`."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class CompletionOrigin(StrEnum):
    """Who wrote a completion."""

    MODEL = "model"
    HUMAN = "human"
    IMPORTED = "imported"
    REFINEMENT = "refinement"


class ItemKind(StrEnum):
    """What an annotator is asked to judge."""

    PAIR = "pair"
    SINGLE = "single"
    RANKING = "ranking"
    PLAYGROUND = "playground"


class ItemStatus(StrEnum):
    """Open items are served; the others are kept and marked."""

    OPEN = "open"
    DONE = "done"
    STALE = "stale"
    FLAGGED = "flagged"


class AssignmentStatus(StrEnum):
    """The life of a lease."""

    LEASED = "leased"
    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    EXPIRED = "expired"


class SelectionReason(StrEnum):
    """Why an item was handed out next; see `storage.selection`."""

    RANDOM = "random"
    REPEAT = "repeat"
    UNCERTAIN = "uncertain"
    OLDEST = "oldest"
    PRACTICE = "practice"
    ATTENTION = "attention"
    OWN = "own"


class AnnotationStatus(StrEnum):
    """A draft is private to its annotator; only submitted annotations train."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    DISCARDED = "discarded"


class Outcome(StrEnum):
    """The outcome of a comparison; first and second are in the order shown to the annotator."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    BOTH_BAD = "both_bad"


class PairSource(StrEnum):
    """What a preference pair of a snapshot was derived from."""

    COMPARISON = "comparison"
    RATING_GAP = "rating_gap"
    REFINEMENT = "refinement"


class RunKind(StrEnum):
    """One recipe in `trainer/recipes` each."""

    GENERATE = "generate"
    REWARD = "reward"
    DPO = "dpo"

    @property
    def trains(self) -> bool:
        """True for kinds that make a model version; at most one of them runs per project at a time."""
        return self is not RunKind.GENERATE


class RunStatus(StrEnum):
    """The life of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True once nothing more will happen to the run."""
        return self in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)


class ModelKind(StrEnum):
    """A policy writes completions; a reward model scores them."""

    POLICY = "policy"
    REWARD = "reward"


class VersionStatus(StrEnum):
    """Where a model version stands: at most one champion per project and kind."""

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    RETIRED = "retired"
    REJECTED = "rejected"
