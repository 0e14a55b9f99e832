"""From finished cells to the table, the verdict and the plot."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.language_feedback.arms import BASE, DEFAULT, LONGER, RATINGS, SHUFFLED

DRAWS = 4_000
Cells = dict[tuple[str, int], dict[int, dict[str, Any]]]  # (arm, size) -> seed -> result


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f}..{self.high:+.3f})"


def by_arm(results: list[dict[str, Any]]) -> Cells:
    """The cells, to be looked up; the base model is the same whatever the size."""
    cells: Cells = defaultdict(dict)
    for result in results:
        cells[result["arm"], result["size"]][result["seed"]] = result
    return cells


def difference(cells: Cells, size: int, arm: str, than: str, than_size: int | None = None) -> Interval | None:
    """How much better `arm` is than another on the same prompts of the same tastes; None without common seeds."""
    ours, theirs = cells.get((arm, size), {}), cells.get((than, size if than_size is None else than_size), {})
    gaps = [_gaps(ours[seed]["quality"], theirs[seed]["quality"]) for seed in sorted(ours.keys() & theirs.keys())]
    gaps = [gap for gap in gaps if len(gap)]
    return _interval(gaps) if gaps else None


def _gaps(ours: dict[str, float], theirs: dict[str, float]) -> NDArray[np.float64]:
    return np.array([value - theirs[prompt] for prompt, value in ours.items() if prompt in theirs])


def _interval(by_seed: list[NDArray[np.float64]]) -> Interval:
    """Bootstrap over seeds, then over the prompts of each (Field and Welsh, 2007, two-stage)."""
    rng = np.random.default_rng(0)
    draws = np.empty(DRAWS)
    for draw in range(DRAWS):
        seeds = rng.integers(len(by_seed), size=len(by_seed))
        draws[draw] = np.mean([rng.choice(by_seed[seed], len(by_seed[seed])).mean() for seed in seeds])
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(float(np.mean([values.mean() for values in by_seed])), float(low), float(high))


def mean_quality(cells: Cells, size: int, arm: str) -> Interval | None:
    """Quality of an arm, 0 to 1."""
    found = [np.array(list(result["quality"].values())) for result in cells.get((arm, size), {}).values()]
    return _interval(found) if found else None


def table(cells: Cells, sizes: tuple[int, ...], arms: list[str]) -> str:
    """Markdown: a row an arm and size."""
    lines = [
        "| annotations | arm | seeds | quality | minus ratings | KL, nats | pairs from critiques |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in (0, *sizes):
        for arm in arms:
            results = list(cells.get((arm, size), {}).values())
            if not results:
                continue
            quality = mean_quality(cells, size, arm)
            gap = None if arm in (BASE.name, RATINGS.name) else difference(cells, size, arm, RATINGS.name)
            kl = np.mean([result["kl"] for result in results])
            refined = np.mean([_from_critiques(result.get("pairs", {})) for result in results])
            lines.append(
                f"| {size or '-'} | {arm} | {len(results)} | {quality.mean if quality else 0:.3f} | {gap or ''} "
                f"| {kl:.1f} | {refined:.0f} |"
            )
    return "\n".join(lines)


def _from_critiques(pairs: dict[str, int]) -> int:
    return sum(count for source, count in pairs.items() if "refinement" in source)


def verdicts(cells: Cells, sizes: tuple[int, ...]) -> dict[str, Interval]:
    """The registered differences that can be told, by name, and what the critiques' time would have bought instead."""
    found = {}
    for size in sizes:
        for other in (RATINGS, SHUFFLED):
            gap = difference(cells, size, DEFAULT.name, other.name)
            if gap is not None:
                found[f"default - {other.name} at {size}"] = gap
        equal = difference(cells, size, DEFAULT.name, LONGER.name)
        found |= {f"equal human time: default - {LONGER.name} at {size}": equal} if equal else {}
    beyond = difference(cells, 200, DEFAULT.name, RATINGS.name, 800)
    return found | ({"default at 200 - ratings at 800": beyond} if beyond else {})


def plot(cells: Cells, sizes: tuple[int, ...], arms: list[str], path: Path) -> None:
    """Quality over annotations, one line an arm, intervals as bars; the base model as a level."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    base = mean_quality(cells, 0, BASE.name)
    if base is not None:
        axes.axhline(base.mean, color="grey", linestyle=":", label=f"base ({base.mean:.2f})")
    for number, arm in enumerate(arms):
        points = [(size, quality) for size in sizes if (quality := mean_quality(cells, size, arm))]
        if points:
            spread = [[q.mean - q.low for _, q in points], [q.high - q.mean for _, q in points]]
            where = [size * 1.03 ** (number - len(arms) / 2) for size, _ in points]  # side by side
            axes.errorbar(where, [q.mean for _, q in points], yerr=spread, marker="o", capsize=3, label=arm)
    axes.set(xscale="log", xlabel="annotations", ylabel="quality on unseen prompts (0 worst, 1 best)")
    axes.set_xlim(min(sizes) / 1.5, max(sizes) * 1.5)
    axes.set_xticks(list(sizes), [str(size) for size in sizes])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path)
    plt.close(figure)
