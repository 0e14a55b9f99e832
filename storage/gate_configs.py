"""What a version must show before it takes over, and what is looked at afterwards: a project's gate settings."""

from __future__ import annotations

from pydantic import Field, field_validator

from storage.configs import Settings

# The figures that a bar is known for: of a policy, of a reward model.
POLICY_BARS = (
    "win_rate",
    "human_win_rate",
    "implicit_accuracy",
    "chosen_logprob",
    "perplexity",
    "kl",
    "length_ratio",
    "format_ok",
)
REWARD_BARS = ("accuracy", "ece")
_REQUIRED = ("win_rate", "implicit_accuracy", "chosen_logprob", "perplexity", "kl", "length_ratio", "format_ok")


class GateSettings(Settings):
    """The bars of a project, and what follows from a verdict. A new field needs a default: old projects lack it."""

    required: tuple[str, ...] = (*_REQUIRED, "accuracy")  # figures that must reach their bar; the others are shown
    min_comparisons: int = Field(30, ge=1, le=1_000_000)  # behind a figure; fewer are inconclusive, whatever they say
    win_rate: float = Field(0.5, ge=0, lt=1)  # over the champion, by the reward model and by people; must be above
    accuracy_drop: float = Field(0.05, ge=0, le=1)  # of pairs, below the champion's at most
    logprob_drop: float = Field(0.1, ge=0)  # nats a token, of chosen completions, below the champion's at most
    perplexity_rise: float = Field(0.1, ge=0)  # of reference text, as a share of the champion's at most
    kl_cap: float = Field(50.0, gt=0)  # nats a completion, from the base model
    length_change: float = Field(1.5, ge=1)  # completions at most so many times as long or as short as the champion's
    format_drop: float = Field(0.05, ge=0, le=1)  # of completions in the right format, below the champion's at most
    ece_target: float = Field(0.1, ge=0, le=1)  # expected calibration error of a reward model, at most

    auto_promote: bool = False  # a cycle promotes what has passed
    # Of new completions, by the candidate, until it is judged; at most one in each item.
    canary_share: float = Field(0.1, ge=0, le=1)

    test_error: float = Field(0.05, gt=0, le=0.5)  # of a blind test: the chance that it names a winner among equals
    test_most: int = Field(400, ge=1, le=100_000)  # decided comparisons after which a blind test gives up

    watch_error: float = Field(0.05, gt=0, le=0.5)  # of alerts: the chance that a champion raises one for nothing
    watch_least: int = Field(50, ge=1, le=1_000_000)  # judgements behind a live figure before it can raise an alert
    roll_back: bool = False  # an alert puts the champion's predecessor back by itself

    @field_validator("required")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = (*POLICY_BARS, *REWARD_BARS)
        for name in value:
            if name not in known:
                raise ValueError(f"there is no bar for '{name}'; choose from: {', '.join(known)}")
        return tuple(dict.fromkeys(value))
