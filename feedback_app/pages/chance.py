"""What a reward model thinks of two completions, in words for operators; annotators never see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feedback_app.i18n import message, sentence, t
from storage.chances import Chance, Chances


def over(found: Chance, other: str) -> str:
    """How probably a completion is better than that of the version `other`."""
    return t("Better than that of {version} with a probability of {chance}", version=other, chance=probability(found))


def of_chosen(found: Chance) -> str:
    """How probably the chosen completion of a pair is the better one."""
    return t("The chosen one is better with a probability of {chance}", chance=probability(found))


def of_new(found: Chance) -> str:
    """How probably what was written anew is better than what was criticised."""
    return t("The new text is better than the old one with a probability of {chance}", chance=probability(found))


def probability(found: Chance) -> str:
    """The figure with its range, and whose it is."""
    value = f"{found.value:.0%}"
    if found.low is None or found.high is None:
        return t("{value}, says {version}", value=value, version=found.judge)
    return t(
        "{value} ({low} to {high}), says {version}",
        value=value, low=f"{found.low:.0%}", high=f"{found.high:.0%}", version=found.judge,
    )  # fmt: skip


def note(found: Chances, pairs: Sequence[Any]) -> str:
    """What the figures are, or why there are none; nothing where there are no pairs to speak of."""
    if found.of:
        return t(
            "Probabilities are a reward model's, calibrated on pairs that it did not learn from; the range is one "
            "standard deviation of its heads. On pairs that it learnt from it is surer than it may be. Annotators "
            "never see them."
        )
    return t("No probabilities: {why}", why=sentence(message(found.why))) if pairs and found.why else ""
