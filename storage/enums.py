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
    REVIEW = "review"
    RESOLUTION = "resolution"


class ItemStatus(StrEnum):
    """Open items are served; the others are kept and marked."""

    OPEN = "open"
    DONE = "done"
    STALE = "stale"
    FLAGGED = "flagged"
    OWN = "own"  # for its owner alone (`Item.owner_id`): outside the queue until they have judged it


class AssignmentStatus(StrEnum):
    """The life of a lease."""

    LEASED = "leased"
    SUBMITTED = "submitted"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    PRACTISED = "practised"  # submitted, in a practice round: no work that counts
    ANSWERED = "answered"  # a question beside the queue, answered or passed over: neither does it (storage.questions)


class Admission(StrEnum):
    """Why a person needs no practice round (any more); see `storage.practice`."""

    PASSED = "passed"
    WAIVED = "waived"
    EXISTING = "existing"  # worked in the project before it asked for practice


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
    PRACTISED = "practised"  # submitted in a practice round, see `storage.practice`


class Outcome(StrEnum):
    """The outcome of a comparison; first and second are in the order shown to the annotator."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    BOTH_BAD = "both_bad"


class PairSource(StrEnum):
    """What a row of a snapshot was derived from."""

    COMPARISON = "comparison"
    RATING_GAP = "rating_gap"
    REFINEMENT = "refinement"  # by a person
    ACCEPTED_REFINEMENT = "accepted_refinement"  # by a model, accepted or edited by a person
    UNREVIEWED_REFINEMENT = "unreviewed_refinement"  # by a model alone
    RATING = "rating"  # what was said of one completion by itself
    CRITIQUE = "critique"
    RULE = "rule"  # written under a rule, over what was written without it
    ANCHOR = "anchor"  # the base model's own, on a prompt out of every rule's scope


class SnapshotForm(StrEnum):
    """What the rows of a snapshot are; each recipe needs one form (`RunKind.form`)."""

    PREFERENCE = "preference"
    PROMPT_COMPLETION = "prompt_completion"
    UNPAIRED = "unpaired"
    FEEDBACK = "feedback"


class RefinementStatus(StrEnum):
    """Where a model's refinement stands; a person's own refinement has none."""

    UNREVIEWED = "unreviewed"
    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"


class ResolutionVerdict(StrEnum):
    """What an annotator says of a new completion in the light of a critique of the old one."""

    FIXED = "fixed"
    PARTLY = "partly"
    NOT = "not"
    WORSE = "worse"


class RuleState(StrEnum):
    """Where a rule stands; see `storage.rules`."""

    SUGGESTED = "suggested"
    ON = "on"  # in the system prompt, and in training
    LEARNED = "learned"  # in training alone: the model does it without being told
    OFF = "off"
    DISMISSED = "dismissed"


class RunKind(StrEnum):
    """One recipe in `trainer/recipes` each."""

    GENERATE = "generate"
    PLAYGROUND = "playground"
    REWARD = "reward"
    DPO = "dpo"
    REFINE = "refine"
    SFT = "sft"
    KTO = "kto"
    CONDITIONAL = "conditional"
    SDFT = "sdft"
    EVALUATE = "evaluate"
    CYCLE = "cycle"  # a parent of other runs, see `storage.cycle`

    @property
    def trains(self) -> bool:
        """True for kinds that make a model version; at most one of them runs per project at a time."""
        return self not in (RunKind.GENERATE, RunKind.PLAYGROUND, RunKind.REFINE, RunKind.EVALUATE, RunKind.CYCLE)

    @property
    def form(self) -> SnapshotForm | None:
        """The rows that the recipe trains on; None where it trains nothing."""
        if not self.trains:
            return None
        return _FORMS.get(self, SnapshotForm.PREFERENCE)


_FORMS = {
    RunKind.SFT: SnapshotForm.PROMPT_COMPLETION,
    RunKind.KTO: SnapshotForm.UNPAIRED,
    RunKind.CONDITIONAL: SnapshotForm.FEEDBACK,
    RunKind.SDFT: SnapshotForm.FEEDBACK,
}


class CycleStep(StrEnum):
    """What one turn of the loop does, in this order; `promote` follows from the project's gate settings."""

    REWARD = "reward"
    CALIBRATE = "calibrate"
    REFINE = "refine"
    RULES = "rules"
    TRAIN = "train"
    EVALUATE = "evaluate"
    GATE = "gate"
    PROMOTE = "promote"


class StepState(StrEnum):
    """Where a step of a cycle stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TurnState(StrEnum):
    """Where a playground conversation stands: the person types, their message waits, is answered, can be judged."""

    TYPING = "typing"
    QUEUED = "queued"
    WRITING = "writing"
    WRITTEN = "written"


class GateVerdict(StrEnum):
    """What a gate says of a version; too little data is inconclusive, not a pass."""

    PASS = "pass"  # noqa: S105 a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class BlindTestState(StrEnum):
    """A blind test runs until one side has won, it has used up its comparisons, or somebody stops it."""

    RUNNING = "running"
    CANDIDATE = "candidate"
    CHAMPION = "champion"
    UNDECIDED = "undecided"
    STOPPED = "stopped"


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
