"""What a project, a snapshot and each run kind can be told: pydantic models, stored as JSON beside what they made.

An unset (None) hyperparameter inherits what was set for the parent version; the rest is chosen by the size of
the data. Both happen once, when a run is queued, so that a run's stored config is complete and reproducible.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from storage.enums import PairSource
from storage.errors import Invalid
from storage.formats import check_formats


class Settings(BaseModel):
    """Base: frozen, and an unknown key is an error rather than a silent no-op."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SamplingSettings(Settings):
    """How completions are sampled."""

    temperature: float = Field(0.8, ge=0, le=4)
    # The least likely tokens together garble the replies of a small model (benchmarks/README.md).
    top_p: float = Field(0.9, gt=0, le=1)
    max_new_tokens: int = Field(160, ge=1, le=4096)
    # For the queue: of so many, the one with the highest mean - caution * spread of the reward ensemble; see
    # storage.best_of, which says when that is refused. 1: each completion as it comes.
    best_of: int = Field(1, ge=1, le=16)
    caution: float = Field(1.0, ge=0, le=10)

    def plain(self) -> dict[str, Any]:
        """How a completion is sampled that nobody chooses among others."""
        return self.model_dump(exclude={"best_of", "caution"})


class TemplateSettings(Settings):
    """How critiques are put to models; None: the application's own wording (storage.wordings)."""

    refine: str | None = None  # asks for the completion again; {critique}, and {span} and {tags} where there are any
    judge: tuple[str, ...] | None = None  # wordings of "does it do what the critique asks?", with {critique}
    yes: str = "yes"  # what the judge says
    no: str = "no"
    condition: str | None = None  # puts feedback into a prompt (recipe conditional); {prompt} and {feedback}
    positive: str | None = None  # the feedback under which a conditional policy writes
    teacher: str | None = None  # what the teacher of sdft sees; {prompt}, {completion} and {critique}

    @field_validator("*")
    @classmethod
    def _can_be_filled_in(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        if value == () or (isinstance(value, tuple) and len(value) > _MOST_WORDINGS):
            raise ValueError(f"give 1 to {_MOST_WORDINGS} wordings, or nothing for the application's own")
        if name == "no" and value.strip().casefold() == str(info.data.get("yes", "")).strip().casefold():
            raise ValueError("yes and no must differ")
        for wording in (value,) if isinstance(value, str) else value or ():
            _check_wording(wording, *_SLOTS.get(name, ((), ())))
        return value


_MOST_WORDINGS, _LONGEST_WORDING = 20, 8000
# What must stand in a wording, and what may.
_SLOTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "refine": (("{critique}",), ("{span}", "{tags}")),
    "judge": (("{critique}",), ()),
    "condition": (("{prompt}", "{feedback}"), ()),
    "teacher": (("{prompt}", "{completion}", "{critique}"), ()),
}


def _check_wording(wording: str, needed: tuple[str, ...], possible: tuple[str, ...]) -> None:
    """Raises `ValueError` for a wording that is empty, too long, lacks a placeholder or has an unknown one."""
    if not wording.strip():
        raise ValueError("it is empty; write something, or reset it to the application's own")
    if len(wording) > _LONGEST_WORDING:
        raise ValueError(f"at most {_LONGEST_WORDING} characters")
    for slot in needed:
        if slot not in wording:
            raise ValueError(f"write {slot} where it belongs")
    known = (*needed, *possible)
    # Other braces, as those of JSON, stand for themselves.
    for slot in re.findall(r"\{\w+\}", wording) if known else ():
        if slot not in known:
            raise ValueError(f"nothing is put in for {slot}; choose from: {', '.join(known)}")


class RefinerSettings(Settings):
    """Who rewrites criticised completions, and how; a project's own, unless a run is told otherwise."""

    # `champion`, a model version (`policy-v3`), or `endpoint`: FEEDBACK_REFINER_URL, the model below.
    refiner: str = Field("champion", pattern=r"^(champion|endpoint|policy-v\d+)$")
    endpoint_model: str | None = None
    samples: int = Field(5, ge=1, le=64)  # refinements sampled for each critique
    temperature: float = Field(1.0, ge=0, le=4)

    @field_validator("endpoint_model")
    @classmethod
    def _named(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("refiner") != "endpoint":
            raise ValueError("set refiner=endpoint as well, or leave it out")
        return value


class AnnotationSettings(Settings):
    """How a project's annotators work. One class for all of it; a new field needs a default, old projects lack it."""

    # Which item comes next; see storage.selection. What the two shares leave goes by the models' disagreement.
    random_share: float = Field(0.3, ge=0, le=1)  # of items handed out: drawn from everything that is free
    repeat_share: float = Field(0.1, ge=0, le=1)  # of items handed out: judged by somebody else already, for agreement

    order: str = Field("free", pattern="^(free|judge_first)$")  # judge_first: critiques open after the verdict
    daily_target: int = Field(0, ge=0, le=10_000)  # annotations a person and day, shown as progress; 0: none
    show_agreement: bool = False  # everybody sees how often they say what the others say; nobody sees another's
    playground: bool = True  # annotators may write to the models
    # Questions beside the queue, after that share of submits while there are any; see storage.questions.
    review_share: float = Field(0.0, ge=0, le=1)  # a model's refinement: accept, edit or reject; 0: people review none
    resolution_share: float = Field(0.25, ge=0, le=1)  # one's own critique: did the new model fix it? 0: never asked
    templates: TemplateSettings = TemplateSettings()  # how what they write is put to models
    refining: RefinerSettings = RefinerSettings()

    # What every completion must look like, one `NAME: KIND VALUE` each; see storage.formats. Evaluations count it.
    formats: tuple[str, ...] = ()

    # Gold items; see storage.practice, storage.checks and storage.standings.
    practice_items: int = Field(0, ge=0, le=50)  # in the round that opens the queue to new annotators; 0: no practice
    practice_pass: float = Field(0.8, ge=0, le=1)  # mean score that passes
    practice_existing: bool = False  # also for people who worked here before practice was asked for
    check_every: int = Field(0, ge=0, le=1000)  # one in so many items handed out is an attention check; 0: none
    check_mark: float = Field(0.7, ge=0, le=1)  # running score under which operators are told
    check_pause: bool = False  # ... and the person is handed nothing until an operator lifts it

    @field_validator("formats", mode="before")
    @classmethod
    def _lines(cls, value: Any) -> Any:
        return value.splitlines() if isinstance(value, str) else value or ()

    @field_validator("formats")
    @classmethod
    def _formats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_formats(value)

    @field_validator("check_every")
    @classmethod
    def _not_only_checks(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one in 1 would make every item a check; give 2 or more, or 0 for none")
        return value

    @field_validator("repeat_share")
    @classmethod
    def _shares_fit(cls, value: float, info: ValidationInfo) -> float:
        if value + info.data.get("random_share", 0.0) > 1:
            raise ValueError("together with random_share it must not exceed 1")
        return value


class PolicyMode(StrEnum):
    """When a project trains by itself."""

    OFF = "off"
    EVERY_N = "every_n"
    CRON = "cron"
    RESOLUTION = "resolution"


class SourceWeights(Settings):
    """How much the rows of a snapshot count by what they were derived from; 0: not used."""

    comparison_weight: float = Field(1.0, ge=0, le=10)  # comparisons and rankings
    rating_weight: float = Field(1.0, ge=0, le=10)  # rating gaps, and ratings of one completion by itself
    refinement_weight: float = Field(1.0, ge=0, le=10)  # by people
    accepted_refinement_weight: float = Field(1.0, ge=0, le=10)  # by a model, accepted or edited by a person
    unreviewed_refinement_weight: float = Field(0.5, ge=0, le=10)  # by a model alone

    def weight_of(self, source: PairSource) -> float:
        """The weight of a source."""
        if source in (PairSource.RATING_GAP, PairSource.RATING):
            return self.rating_weight
        weights = {
            PairSource.COMPARISON: self.comparison_weight,
            PairSource.REFINEMENT: self.refinement_weight,
            PairSource.ACCEPTED_REFINEMENT: self.accepted_refinement_weight,
            PairSource.UNREVIEWED_REFINEMENT: self.unreviewed_refinement_weight,
        }
        return weights.get(source, 1.0)


class TrainingPolicy(SourceWeights):
    """Periodic training of a project, and what its snapshots weigh, however training is started."""

    mode: PolicyMode = PolicyMode.OFF
    every_n: int = Field(100, ge=1)  # new usable annotations; also what mode resolution waits for
    cron: str = "0 3 * * *"  # five fields, UTC
    # Mode resolution: when less than this share of what people criticised is called fixed in the champion's answers ...
    resolution_below: float = Field(0.5, gt=0, le=1)
    resolution_least: int = Field(20, ge=1)  # ... of so many answers at least
    kinds: tuple[str, ...] = ("cycle",)  # which trains all that is needed, measures and judges it; or what trains


class SnapshotSettings(SourceWeights):
    """How annotations become the rows of a snapshot."""

    rating_margin: float = Field(1.0, gt=0)  # smallest gap of mean ratings (scaled to 1..5) that makes a pair
    use_comparisons: bool = True
    use_ratings: bool = True
    use_refinements: bool = True
    # Of rules (storage.rule_rows); what people say trains reward models, so a reward model takes none of it.
    use_rules: bool = True
    rule_weight: float = Field(0.5, ge=0, le=10)  # written under a rule, over what was written without it
    rule_anchors: float = Field(1.0, ge=0, le=10)  # completions out of every scope, for each such pair
    min_train_pairs: int = Field(16, ge=1)
    min_test_pairs: int = Field(1, ge=0)


class TrainingSettings(Settings):
    """What reward and DPO training share. None means: inherit from the parent version, else scale with the data."""

    epochs: float | None = Field(None, gt=0, le=100)
    max_steps: int | None = Field(None, ge=1)
    learning_rate: float | None = Field(None, gt=0, le=1)
    batch_size: int | None = Field(None, ge=1, le=4096)
    gradient_accumulation: int = Field(1, ge=1)
    lora_r: int | None = Field(None, ge=1, le=1024)
    # Tokens of prompt + completion (see trainer.datasets for the rule). None: 1024, on a CPU 512; where that is more
    # than the model's context, the context.
    max_length: int | None = Field(None, ge=16)
    seed: int = 0
    eval_steps: int | None = Field(None, ge=1)
    save_steps: int | None = Field(None, ge=1)
    early_stopping: bool = True
    threads: int | None = Field(None, ge=1)
    dtype: str = Field("auto", pattern="^(auto|float32|bfloat16|float16)$")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    min_train_pairs: int = Field(16, ge=1)
    time_limit: float | None = Field(None, gt=0, le=100_000)  # minutes of one attempt; then it fails, and can go on


class RewardConfig(TrainingSettings):
    """Reward model: Bradley-Terry loss on pairs, LoRA on a sequence classifier."""

    heads: int = Field(4, ge=1, le=16)  # an ensemble on one base: its spread says how sure it is; 1: no ensemble
    center_rewards_coefficient: float | None = Field(None, ge=0)


class DpoConfig(TrainingSettings):
    """Policy: DPO with an SFT anchor (without it minimal-edit pairs collapse a small model)."""

    beta: float | None = Field(None, gt=0)
    sft_weight: float | None = Field(None, ge=0)
    # True: all before the first step. False: each when first seen, and kept; as quick in the end, and no wait.
    precompute_reference: bool = False


class GenerateConfig(Settings):
    """Fill the queue: `prompts` prompts get `completions_per_prompt` distinct completions each."""

    prompts: int = Field(20, ge=1, le=100_000)
    completions_per_prompt: int = Field(2, ge=1, le=16)
    batch_size: int = Field(32, ge=1, le=1024)
    # Set by storage.resolution: answer the prompts of these critiques again, instead of filling the queue.
    critique_ids: tuple[int, ...] = ()
    # Write what rules are trained on, instead of filling the queue: `prompts` prompts in scope, and anchors.
    for_rules: bool = False
    candidate_share: float = Field(0.0, ge=0, le=1)  # of prompts where one completion comes from the newest candidate
    seed: int = 0
    dtype: str = Field("auto", pattern="^(auto|float32|bfloat16|float16)$")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: int | None = Field(None, ge=1)
    time_limit: float | None = Field(None, gt=0, le=100_000)  # minutes


class PlaygroundConfig(Settings):
    """Answer people who write to the models, for as long as somebody does."""

    idle_seconds: float = Field(300, ge=0)  # without a message, until the process ends
    dtype: str = Field("auto", pattern="^(auto|float32|bfloat16|float16)$")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: int | None = Field(None, ge=1)


T = TypeVar("T", bound=Settings)
_LONGEST_ECHO = 60  # characters of a refused value in the line that refuses it


def parse(kind: type[T], values: dict[str, Any]) -> T:
    """Validate `values` as settings of `kind`; raises `Invalid` with one line that names the key and the mend."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "value"
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(kind.model_fields))
            raise Invalid(f"unknown setting '{key}'; choose from: {known}") from error
        what = first["msg"].removeprefix("Value error, ")
        given = repr(first["input"])
        given = given if len(given) <= _LONGEST_ECHO else f"{given[:_LONGEST_ECHO]}…"
        raise Invalid(f"setting '{key}': {what[0].lower()}{what[1:]} (got {given})") from error


def inherit(asked: dict[str, Any], parent_asked: dict[str, Any]) -> dict[str, Any]:
    """`asked` with what was set for the parent version where nothing is said here; a budget is never inherited."""
    own = {key: value for key, value in asked.items() if value is not None}
    return {key: value for key, value in parent_asked.items() if key not in ("max_steps", "time_limit")} | own


def scale_common(values: dict[str, Any], train_pairs: int, learning_rate: float) -> None:
    """Fill what is unset in the values of a `TrainingSettings` from the number of training pairs.

    One to three epochs. Some fifty steps move the starter, a hundred and fifty on the same pairs collapse it; early
    stopping on held-out pairs guards small sets only as far as they have held-out pairs.
    """
    batch = values["batch_size"] or (8 if train_pairs < 200 else 16)
    values["batch_size"] = min(batch, max(1, train_pairs))
    values["epochs"] = values["epochs"] or (3.0 if train_pairs < 300 else 2.0 if train_pairs < 800 else 1.0)
    values["learning_rate"] = values["learning_rate"] or learning_rate
    values["lora_r"] = values["lora_r"] or 16
    steps = max(1, int(train_pairs * values["epochs"] / (values["batch_size"] * values["gradient_accumulation"])))
    if values["max_steps"]:
        steps = min(steps, values["max_steps"])
    values["eval_steps"] = values["eval_steps"] or max(5, steps // 6)
    values["save_steps"] = values["save_steps"] or values["eval_steps"]


def resolve_reward(config: RewardConfig, train_pairs: int) -> RewardConfig:
    """A complete reward config for `train_pairs` pairs."""
    values = config.model_dump()
    scale_common(values, train_pairs, learning_rate=1e-3)
    if values["center_rewards_coefficient"] is None:
        values["center_rewards_coefficient"] = 0.01
    return RewardConfig(**values)


def resolve_dpo(config: DpoConfig, train_pairs: int) -> DpoConfig:
    """A complete DPO config for `train_pairs` pairs; beta is raised under 500 pairs."""
    values = config.model_dump()
    scale_common(values, train_pairs, learning_rate=1e-3)
    values["beta"] = values["beta"] or (0.3 if train_pairs < 500 else 0.1)
    if values["sft_weight"] is None:
        values["sft_weight"] = 1.0
    return DpoConfig(**values)
