"""Quality figures in plain words, for the page and the command line."""

from __future__ import annotations

from collections.abc import Sequence

from feedback_app.i18n import listed, t
from storage.quality import COMPARISONS, Interval, Metric, Question, Report, Share

# Krippendorff, Content Analysis (2018): rely on 0.8 and more, draw tentative conclusions from 0.667 on.
GOOD, FAIR, WEAK = 0.8, 2 / 3, 0.4
FEW = 30  # units, under which an interval itself is not to be trusted far
_NOTABLE = 0.1  # of a scale's length: by so much somebody must rate higher or lower to be named
_BESIDE = 0.6  # of the largest offset: whoever rates high lets all others seem to rate low, at most half as much


def no_agreement() -> str:
    """What to do where nothing was judged twice."""
    return t(
        "Agreement needs items judged by two or more people: set overlap to 2 on the Project tab, or let 10 % of the "
        "items repeat, and invite a second annotator."
    )


def no_annotations() -> str:
    """What to do where nothing was judged."""
    return t("No annotations yet: invite annotators on the Users tab; figures appear with what they submit.")


def no_critiques() -> str:
    """What comes where nothing was criticised."""
    return t("No critiques yet: they are counted here by the model version that wrote the completion, with their tags.")


def named(question: str) -> str:
    """A question by its name: a criterion's own, or the word for comparisons."""
    return t("comparisons") if question == COMPARISONS else question


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
    name = named(question.name)
    if question.alpha is None:
        return t("Everybody always said the same of {question}: agreement cannot be told from habit.", question=name)
    found = {
        "good": t("Agreement on {question} is good: {figure}"),
        "fair": t("Agreement on {question} is fair: {figure}"),
        "weak": t("Agreement on {question} is weak: {figure}"),
        "poor": t("Agreement on {question} is poor: {figure}"),
        "none": t("Agreement on {question} is no better than chance: {figure}"),
    }[grade(question)]
    if question.alpha.high < 0:
        found = t("On {question} people disagree more than by chance, as if they read it in opposite ways: {figure}")
    told = [found.format(question=name, figure=interval(question.alpha))]
    if apart := readers(question):
        told.append(apart)
    line = t("{told}.", told=t("; ").join(told))
    if question.things >= FEW:
        return line
    few = t("It rests on {n} {things} only, so do not rely on it yet.", n=question.things, things=_things(question))
    return f"{line} {few}"


def readers(question: Question) -> str:
    """Who rates clearly higher or lower than the others on the same completions; empty where nobody does."""
    if question.scale is None:
        return ""
    offsets = {name: one.offset for name, one in question.beside.items() if one.offset}
    largest = max((abs(one.value) for one in offsets.values()), default=0.0)
    notable = max(_NOTABLE * (question.scale[1] - question.scale[0]), _BESIDE * largest)
    found = [
        (one.value, _offset(name, one.value))
        for name, one in offsets.items()
        if abs(one.value) >= notable and (one.low > 0 or one.high < 0)
    ]
    if not found:
        return ""
    told = [text for _, text in sorted(found, key=lambda one: -abs(one[0]))]
    if len(told) == 1:
        return t("one person reads the scale differently ({list} than the others)", list=_listed(told))
    return t(
        "{people} read the scale differently ({list} than the others)", people=_number(len(told)), list=_listed(told)
    )


def position(share: Share) -> str:
    """What the share of comparisons won by the completion shown first says."""
    if share.value is None:
        return t("No comparison has been decided on the annotate page yet, and imported ones have no shown order.")
    figures = {"share": percent(share), "all": f"{share.total:,}"}
    figure = t("{share} of {all} decided comparisons went to the completion shown first", **figures)
    lean = share.leans()
    if lean == 0:
        return t("No position bias to be seen: {figure}; half is fair.", figure=figure)
    told = (
        t("People lean to the first (A) one: {figure}, where half is fair; {advice}.")
        if lean > 0
        else t("People lean to the second (B) one: {figure}, where half is fair; {advice}.")
    )
    advice = t("the order is random, so it evens out in training, but it is noise; remind people to read both")
    return told.format(figure=figure, advice=advice)


def length(share: Share) -> str:
    """What the share of comparisons won by the longer completion says."""
    if share.value is None:
        return t("No comparison between completions of different length has been decided yet.")
    figures = {"share": percent(share), "all": f"{share.total:,}"}
    figure = t("the longer completion won {share} of {all} decided comparisons", **figures)
    lean = share.leans()
    if lean == 0:
        return t("No length bias to be seen: {figure}.", figure=figure)
    told = (
        t(
            "People prefer the longer completion: {figure}. It may well be the better one; a model trained on this "
            "will write longer replies."
        )
        if lean > 0
        else t(
            "People prefer the shorter completion: {figure}. It may well be the better one; a model trained on this "
            "will write shorter replies."
        )
    )
    return told.format(figure=figure)


def rests_on(report: Report) -> str:
    """How much was looked at."""
    if report.used == report.annotations:
        return t("All {all} annotations that count", all=f"{report.annotations:,}")
    return t(
        "The newest {n} of {all} annotations; `{command}` looks at all of them",
        n=f"{report.used:,}",
        all=f"{report.annotations:,}",
        command=f"feedback-app quality --project {report.project}",
    )


def basis(question: Question) -> str:
    """How much a question's agreement rests on."""
    scale = {Metric.NOMINAL: t("same or not"), Metric.ORDINAL: t("by rank"), Metric.INTERVAL: t("by difference")}
    return t(
        "{n} {things} judged by two or more, {scale}",
        n=f"{question.things:,}",
        things=_things(question),
        scale=scale[question.metric],
    )


def _things(question: Question) -> str:
    return t("pairs") if question.name == COMPARISONS and question.scale is None else t("completions")


def _offset(name: str, value: float) -> str:
    by = f"{abs(value):.1f}"
    return (
        t("{name} rates {by} higher", name=name, by=by) if value > 0 else t("{name} rates {by} lower", name=name, by=by)
    )


def _number(count: int) -> str:
    words = {2: t("two people"), 3: t("three people"), 4: t("four people")}
    return words.get(count) or t("{n} people", n=count)


def _listed(texts: Sequence[str], most: int = 3) -> str:
    shown = list(texts[:most])
    if len(texts) > most:
        shown.append(t("and {n} more", n=len(texts) - most))
    return listed(shown)
