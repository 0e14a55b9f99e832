"""Best-of-n: of n completions sampled, the one that the reward ensemble finds best is kept; and when that is refused.

What is chosen by a reward model is also chosen for its mistakes, the more so the larger n is (Gao et al. 2023,
2210.10760). So the reward is the mean over the heads minus `caution` times their spread (Coste et al. 2023,
2310.02743), n is 16 at most, and the guard below looks at what the reward model was measured to be. How far the choice
moves the policy is bounded: KL(best of n, policy) <= log n - (n - 1) / n nats (Beirami et al. 2024, 2401.01879).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from sqlalchemy.orm import Session

from storage.configs import SamplingSettings, parse
from storage.enums import ModelKind
from storage.evaluations import figures, latest_evaluation
from storage.gate_configs import GateSettings
from storage.models import ModelVersion, Project
from storage.registry import champion

ALONE = 4  # of a reward model of one head, which does not say how unsure it is
_GUESSING = 0.5


class BestOf(NamedTuple):
    """How many are sampled for each completion, by whom they are chosen, and a line for the log (empty: nothing)."""

    n: int
    chooser: ModelVersion | None
    why: str


def best_of(session: Session, project: Project, sampling: SamplingSettings, base_model: str) -> BestOf:
    """What a project's `best_of` comes to now, for policies on `base_model`: 1 where the reward model is not up to it.

    It has to be the champion, evaluated, right more often than a coin (the whole interval of its accuracy), and
    calibrated (its ECE within the gate's target).
    """
    wanted = sampling.best_of
    if wanted == 1:
        return BestOf(1, None, "")
    reward = champion(session, project, ModelKind.REWARD)
    if reward is None or reward.base_model != base_model:
        return _off("no reward model on this base model is the champion: promote one")
    evaluation = latest_evaluation(session, reward)
    if evaluation is None:
        return _off(f"{reward.name} was not evaluated: feedback-app evaluate {reward.name}")
    told = figures(evaluation)
    accuracy, ece = told.get("accuracy"), told.get("ece")
    if accuracy is None or accuracy.low is None or accuracy.low <= _GUESSING:
        return _off(f"the accuracy of {reward.name} cannot be told from guessing; collect more feedback")
    target = parse(GateSettings, project.gate_settings or {}).ece_target
    if ece is None or ece.value is None or ece.value > target:
        return _off(f"the calibration error of {reward.name} is above the gate's target of {target:g}")
    heads = (reward.metrics or {}).get("heads", 1)
    n = wanted if isinstance(heads, int) and heads > 1 else min(wanted, ALONE)
    fewer = f" instead of {wanted}, as it has one head" if n < wanted else ""
    return BestOf(
        n, reward, f"best of {n}{fewer}, chosen by {reward.name}: at most {moved(n):.2f} nats from the policy"
    )


def _off(why: str) -> BestOf:
    return BestOf(1, None, f"best of n is off: {why}")


def moved(n: int) -> float:
    """How far the best of n can be from the policy that wrote them, in nats."""
    return math.log(n) - (n - 1) / n
