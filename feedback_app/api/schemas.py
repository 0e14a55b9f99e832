"""What the API takes and gives. Lengths and counts are bounded here, so that no request is large by accident."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from storage.enums import ItemKind, ItemStatus, Outcome, RunKind, RunStatus, Split, VersionStatus
from storage.submissions import MAX_CHARACTERS

MAX_BATCH = 1_000
MAX_TEXT = 200_000  # characters of a prompt's message or a completion
MAX_SHOWN = 8  # completions judged together
MAX_ID = 2**31 - 1


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("a name has letters, digits and signs, and no control characters")
    return text.strip()


def _says_something(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty")
    return text


Id = Annotated[int, Field(ge=1, le=MAX_ID, strict=True)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=120), AfterValidator(_printable)]
AnnotatorName = Annotated[str, StringConstraints(min_length=1, max_length=80), AfterValidator(_printable)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT), AfterValidator(_says_something)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CHARACTERS), AfterValidator(_says_something)]
Position = Annotated[int, Field(ge=0, lt=MAX_SHOWN, strict=True, description="Number of the completion, from 0.")]


class Taken(BaseModel):
    """Base of what is sent: an unknown key is an error rather than a silent no-op."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(BaseModel):
    """What is wrong, and what to do about it."""

    error: str
    mend: str | None = None


class Turn(Taken):
    """A chat message."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=MAX_TEXT)]


Prompt = Annotated[
    Text | Annotated[list[Turn], Field(min_length=1, max_length=200)],
    Field(description="A text is one message of the user; a list is chat messages, the user's last."),
]


class OfProject(Taken):
    """Base of requests: which project."""

    project: Name | None = Field(None, description="May be left out when the token is for one project.")


class NewPrompts(OfProject):
    """Prompts to add; those that are there already are found again."""

    prompts: list[Prompt] = Field(min_length=1, max_length=MAX_BATCH)


class StoredPrompt(BaseModel):
    """A prompt that was added or was there."""

    id: int
    created: bool
    split: Split


class StoredPrompts(BaseModel):
    """In the order sent."""

    prompts: list[StoredPrompt]


class NewCompletions(Taken):
    """Completions of another application for one prompt, to be judged together or only stored."""

    prompt: Prompt | None = None
    prompt_id: Id | None = None
    completions: list[Text] = Field(min_length=1, max_length=MAX_SHOWN)
    judge: bool = Field(True, description="Put them into the annotators' queue.")

    @model_validator(mode="after")
    def _one_prompt(self) -> NewCompletions:
        _require_one(self.prompt, self.prompt_id)
        _require_different(self.completions)
        return self


class NewCompletionSets(OfProject):
    """Several prompts with their completions."""

    sets: list[NewCompletions] = Field(min_length=1, max_length=250)


class StoredCompletions(BaseModel):
    """What stands for one set; `item_id` is what annotators judge."""

    prompt_id: int
    completion_ids: list[int]
    item_id: int | None


class StoredCompletionSets(BaseModel):
    """In the order sent."""

    sets: list[StoredCompletions]


class RatingGiven(Taken):
    """A value on one of the project's criteria."""

    criterion: Name
    value: Annotated[int, Field(ge=-1_000_000, le=1_000_000, strict=True)]
    completion: Position = 0


class CritiqueGiven(Taken):
    """Written feedback, optionally on the characters [start, end) of the completion."""

    text: Words
    completion: Position = 0
    tags: list[Annotated[Name, StringConstraints(max_length=60)]] = Field([], max_length=20)
    fix: Words | None = Field(None, description="What it should say instead.")
    span: tuple[Annotated[int, Field(ge=0, le=MAX_TEXT)], Annotated[int, Field(ge=1, le=MAX_TEXT)]] | None = None


class RefinementGiven(Taken):
    """A completion as it should have been."""

    text: Words
    completion: Position = 0


class PreferenceGiven(Taken):
    """The outcome of comparing the first two completions."""

    outcome: Outcome
    strength: Annotated[int, Field(ge=1, le=3, strict=True)] | None = Field(
        None, description="1 slightly, 2 clearly, 3 much better; only with first or second."
    )


class FeedbackGiven(Taken):
    """What one person said about completions of one prompt."""

    annotator: AnnotatorName | None = Field(None, description="Your application's name for the person.")
    prompt: Prompt | None = None
    prompt_id: Id | None = None
    completions: list[Text] | None = Field(None, min_length=1, max_length=MAX_SHOWN)
    completion_ids: list[Id] | None = Field(None, min_length=1, max_length=MAX_SHOWN)
    thumb: Literal["up", "down"] | None = Field(None, description="On the first completion.")
    ratings: list[RatingGiven] = Field([], max_length=100)
    preference: PreferenceGiven | None = None
    critiques: list[CritiqueGiven] = Field([], max_length=20)
    refinements: list[RefinementGiven] = Field([], max_length=MAX_SHOWN)

    @model_validator(mode="after")
    def _whole(self) -> FeedbackGiven:
        if (self.completions is None) == (self.completion_ids is None):
            raise ValueError("give either completions or completion_ids")
        if self.completions is not None:
            _require_one(self.prompt, self.prompt_id)
        elif self.prompt is not None or self.prompt_id is not None:
            raise ValueError("completion_ids say which prompt it is; leave prompt and prompt_id out")
        shown: list[Any] = self.completions or self.completion_ids or []
        _require_different(shown)
        said = (self.ratings, self.critiques, self.refinements)
        if not (self.thumb or self.preference or any(said)):
            raise ValueError("nothing is said; give a thumb, ratings, a preference, critiques or refinements")
        if self.preference is not None and len(shown) < 2:
            raise ValueError("a preference compares two completions")
        if any(one.completion >= len(shown) for part in said for one in part):
            raise ValueError(f"there are {len(shown)} completions; the first has the number 0")
        if len({(one.completion, one.criterion) for one in self.ratings}) < len(self.ratings):
            raise ValueError("there are two ratings of one completion on one criterion")
        if len({one.completion for one in self.refinements}) < len(self.refinements):
            raise ValueError("there are two refinements of one completion")
        return self


class FeedbackBatch(OfProject):
    """Feedback of another application's people."""

    feedback: list[FeedbackGiven] = Field(min_length=1, max_length=MAX_BATCH)


class FeedbackStored(BaseModel):
    """What became of each entry, in the order sent.

    `already there`: the same was said before, nothing changed. `judged before`: the same annotator has said something
    else about these completions, which stands.
    """

    stored: int
    results: list[Literal["stored", "already there", "judged before"]]


class NewRun(OfProject):
    """A run to queue."""

    kind: RunKind | Literal["auto"] = Field(description="`auto` looks at what was collected and chooses.")
    settings: dict[Annotated[str, StringConstraints(max_length=60)], bool | int | float | str | None] = Field(
        {}, max_length=50, description="What `feedback-app train` takes as name=value; of `evaluate` also `version`."
    )


class CriterionShown(BaseModel):
    """A rating scale of whole numbers."""

    name: str
    description: str
    low: int
    high: int


class ProjectShown(BaseModel):
    """A project that the token may use."""

    name: str
    guidelines: str
    overlap: int
    tags: list[str]
    criteria: list[CriterionShown]
    created_at: datetime


class Projects(BaseModel):
    """By name."""

    projects: list[ProjectShown]


class PromptShown(BaseModel):
    """A stored prompt."""

    id: int
    messages: list[dict[str, str]]
    source: str
    split: Split
    created_at: datetime


class Page(BaseModel):
    """Base of lists: send `next` as `after` for what follows; null at the end."""

    next: int | None


class Prompts(Page):
    """Oldest first."""

    prompts: list[PromptShown]


class CompletionShown(BaseModel):
    """A completion of an item."""

    id: int
    text: str
    origin: str
    model: str | None


class ItemShown(BaseModel):
    """A prompt with the completions to be judged."""

    id: int
    prompt_id: int
    kind: ItemKind
    status: ItemStatus
    gold: bool  # an operator has said what is right: what people say on it is a control, and no feedback
    judged: int
    messages: list[dict[str, str]]
    completions: list[CompletionShown]
    created_at: datetime


class Items(Page):
    """Oldest first."""

    items: list[ItemShown]


class AnnotationShown(BaseModel):
    """What one person said about an item; `superseded_at` and `withdrawn_at` are null while it counts.

    On a gold item it never counts as feedback; `gold_score` is how much of what is right it says, 0 to 1.
    """

    id: int
    item_id: int
    annotator: str
    submitted_at: datetime | None
    superseded_at: datetime | None
    withdrawn_at: datetime | None
    gold: bool
    gold_score: float | None
    seconds_spent: float | None
    ratings: list[dict[str, int | str]]
    preferences: list[dict[str, int | str | None]]
    ranking: list[dict[str, int]]
    critiques: list[dict[str, Any]]
    refinements: list[dict[str, int]]


class Annotations(Page):
    """Oldest first, drafts left out."""

    annotations: list[AnnotationShown]


class ModelShown(BaseModel):
    """A model version."""

    name: str
    status: VersionStatus
    base_model: str
    run_id: int | None
    metrics: dict[str, Any]
    created_at: datetime
    tainted_at: datetime | None
    resolution: dict[str, Any] | None = Field(
        None, description="What people said of its answers to what they had criticised, with rates and intervals."
    )


class Models(BaseModel):
    """Policies first, newest first."""

    models: list[ModelShown]


class RunShown(BaseModel):
    """A run and how far it is; `because` says why `auto` chose its kind, when it was queued so."""

    id: int
    kind: RunKind
    status: RunStatus
    step: int | None
    total_steps: int | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    because: str | None = None


class Runs(BaseModel):
    """Newest first."""

    runs: list[RunShown]


def _require_one(prompt: object, prompt_id: object) -> None:
    if (prompt is None) == (prompt_id is None):
        raise ValueError("give either prompt or prompt_id")


def _require_different(shown: list[Any]) -> None:
    if len(set(shown)) < len(shown):
        raise ValueError("two of the completions are the same")
