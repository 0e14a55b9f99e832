"""Quality figures in plain words, for the page and the command line."""

from __future__ import annotations

from collections.abc import Sequence

from storage.quality import COMPARISONS, Interval, Metric, Question, Report, Share

# Krippendorff, Content Analysis (2018): rely on 0.8 and more, draw tentative conclusions from 0.667 on.
GOOD, FAIR, WEAK = 0.8, 2 / 3, 0.4
FEW = 30  # units, under which an interval itself is not to be trusted far
_NOTABLE = 0.1  # of a scale's length: by so much somebody must rate higher or lower to be named
_BESIDE = 0.6  # of the largest offset: whoever rates high lets all others seem to rate low, at most half as much

NO_AGREEMENT = (
    "Agreement needs items judged by two or more people: set overlap to 2 on the Project tab, or let 10 % of the items "
    "repeat, and invite a second annotator."
)
NO_ANNOTATIONS = "No annotations yet: invite annotators on the Users tab; figures appear with what they submit."
NO_POSITION = "No comparison has been decided on the annotate page yet, and imported ones have no shown order."
NO_LENGTH = "No comparison between completions of different length has been decided yet."
NO_CRITIQUES = (
    "No critiques yet: they are counted here by the model version that wrote the completion, with their tags."
)


def interval(figure: Interval) -> str:
    """`0.31 (0.22..0.40)`."""
    return f"{figure.value:.2f} ({figure.low:.2f}..{figure.high:.2f})"


def percent(share: Share) -> str:
    """`82 % (75..87)`, or a dash for nothing."""
    if share.value is None:
        return "–"
    low, high = share.bounds
    return f"{100 * share.value:.0f} % ({100 * low:.0f}..{100 * high:.0f})"


def grade(question: Question) -> str:
    """One word for a question's agreement: good, fair, weak, poor, none; "unknown" where alpha is not defined."""
    if question.alpha is None:
        return "unknown"
    if question.alpha.value >= GOOD:
        return "good"
    if question.alpha.value >= FAIR:
        return "fair"
    if question.alpha.value >= WEAK:
        return "weak"
    return "poor" if question.alpha.low > 0 else "none"


def agreement(question: Question) -> str:
    """A sentence on how far people agree on the question, and who reads its scale differently."""
    if question.alpha is None:
        return f"Everybody always said the same of {question.name}: agreement cannot be told from habit."
    figure = interval(question.alpha)
    if question.alpha.high < 0:
        told = f"On {question.name} people disagree more than by chance, as if they read it in opposite ways: {figure}"
    elif grade(question) == "none":
        told = f"Agreement on {question.name} is no better than chance: {figure}"
    else:
        told = f"Agreement on {question.name} is {grade(question)}: {figure}"
    apart = readers(question)
    told += f"; {apart}" if apart else ""
    if question.things < FEW:
        told += f". It rests on {question.things} {_things(question)} only, so do not rely on it yet"
    return f"{told}."


def readers(question: Question) -> str:
    """Who rates clearly higher or lower than the others on the same completions; empty where nobody does."""
    if question.scale is None:
        return ""
    offsets = {name: one.offset for name, one in question.beside.items() if one.offset}
    largest = max((abs(one.value) for one in offsets.values()), default=0.0)
    notable = max(_NOTABLE * (question.scale[1] - question.scale[0]), _BESIDE * largest)
    found = [
        (one.value, f"{name} rates {abs(one.value):.1f} {_direction(one.value)}")
        for name, one in offsets.items()
        if abs(one.value) >= notable and (one.low > 0 or one.high < 0)
    ]
    if not found:
        return ""
    told = [text for _, text in sorted(found, key=lambda one: -abs(one[0]))]
    verb = "reads" if len(told) == 1 else "read"
    return f"{_number(len(told))} {verb} the scale differently ({_listed(told)} than the others)"


def position(share: Share) -> str:
    """What the share of comparisons won by the completion shown first says."""
    if share.value is None:
        return NO_POSITION
    figure = f"{percent(share)} of {share.total:,} decided comparisons went to the completion shown first"
    lean = share.leans()
    if lean == 0:
        return f"No position bias to be seen: {figure}; half is fair."
    side = "first (A)" if lean > 0 else "second (B)"
    advice = "the order is random, so it evens out in training, but it is noise; remind people to read both"
    return f"People lean to the {side} one: {figure}, where half is fair; {advice}."


def length(share: Share) -> str:
    """What the share of comparisons won by the longer completion says."""
    if share.value is None:
        return NO_LENGTH
    figure = f"the longer completion won {percent(share)} of {share.total:,} decided comparisons"
    lean = share.leans()
    if lean == 0:
        return f"No length bias to be seen: {figure}."
    which = "longer" if lean > 0 else "shorter"
    return (
        f"People prefer the {which} completion: {figure}. It may well be the better one; a model trained on this will "
        f"write {which} replies."
    )


def rests_on(report: Report) -> str:
    """How much was looked at."""
    if report.used == report.annotations:
        return f"All {report.annotations:,} annotations that count"
    return (
        f"The newest {report.used:,} of {report.annotations:,} annotations; "
        f"`feedback-app quality --project {report.project}` looks at all of them"
    )


def basis(question: Question) -> str:
    """How much a question's agreement rests on."""
    scale = {Metric.NOMINAL: "same or not", Metric.ORDINAL: "by rank", Metric.INTERVAL: "by difference"}
    return f"{question.things:,} {_things(question)} judged by two or more, {scale[question.metric]}"


def _things(question: Question) -> str:
    return "pairs" if question.name == COMPARISONS and question.scale is None else "completions"


def _direction(offset: float) -> str:
    return "higher" if offset > 0 else "lower"


def _number(count: int) -> str:
    words = {1: "one person", 2: "two people", 3: "three people", 4: "four people"}
    return words.get(count, f"{count} people")


def _listed(texts: Sequence[str], most: int = 3) -> str:
    shown = list(texts[:most])
    if len(texts) > most:
        shown.append(f"and {len(texts) - most} more")
    return ", ".join(shown)
