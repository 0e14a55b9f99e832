"""The quality figures of a project in one object: agreement, people, habits, tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.checks import CheckScore, check_scores
from storage.configs import AnnotationSettings
from storage.models import Criterion, Project, User, utc_now
from storage.progress import count_usable
from storage.quality import reading
from storage.quality.agreement import Floats, Interval, Ints, Metric, Units, alpha
from storage.quality.reading import Leanings, Turned, Writer
from storage.quality.reliability import Beside, beside_others, dawid_skene
from storage.quality.shares import Share

COMPARISONS = "comparisons"
ORDINAL_STEPS = 11  # longer scales are sliders: their differences mean something, and single steps do not
_BANDS = 10  # into which a slider's values are put where it is asked whether two people said the same
_NOTHING = Leanings(Share(0, 0), Share(0, 0))


@dataclass(frozen=True)
class Question:
    """Something several people judged: one criterion, or which of two completions is better."""

    name: str
    metric: Metric
    scale: tuple[int, int] | None  # None: comparisons
    alpha: Interval | None  # Krippendorff's; None where nothing was judged twice or everybody said the same
    things: int  # completions (for comparisons: pairs) that two or more people judged
    judgements: int  # of them
    beside: Mapping[str, Beside]  # annotator -> how they stand beside the others


@dataclass(frozen=True)
class Person:
    """One annotator. `majority` and `reliability` are of the report's headline question."""

    name: str
    annotations: int
    days: int  # on which they submitted any (UTC)
    median_seconds: float | None
    majority: Share
    reliability: float | None  # Dawid-Skene: the probability of saying what is true
    first: Share
    longer: Share
    turned: Turned
    checks: CheckScore  # running score of attention checks
    too_low: bool  # it is under the project's mark, on enough checks


@dataclass(frozen=True)
class Report:
    """Quality figures of `project` as of `made_at`; `used` of its `annotations` were looked at, the newest."""

    project: str
    made_at: datetime
    annotations: int
    used: int
    overlap: int
    repeat_share: float
    questions: tuple[Question, ...]  # comparisons first, then the criteria in the project's order; only shared ones
    headline: str | None  # the question that people's majority and reliability are of
    people: tuple[Person, ...]  # most annotations first
    first: Share  # of decided comparisons made on the page: the completion shown first won
    longer: Share  # of decided comparisons: the longer completion won
    writers: tuple[Writer, ...]


def quality_report(session: Session, project: Project, newest: int | None = None) -> Report:
    """The quality figures of `project`; with `newest`, of its newest so many annotations (skips are of all time).

    Agreement counts the older annotations of the same items as well. Only live annotations count. Comparisons are a
    nominal question about completions, whatever the order they were shown in; "both bad" is a tie. Scales of up to
    eleven steps are ordinal, longer ones interval.
    """
    window = reading.newest(session, project, newest)
    names = _names(session)
    asked = [_comparisons(reading.compared(session, window), names)]
    ratings = reading.rated(session, window)
    asked += [_criterion(one, ratings[one.id], names) for one in project.criteria if one.id in ratings]
    shared = [(question, units) for question, units in asked if question.things]
    headline = _headline(shared)
    work = reading.work(session, window)
    leanings = reading.leanings(session, window)
    total = count_usable(session, project)
    settings = AnnotationSettings(**project.annotation_settings)
    checks = _Checks(check_scores(session, project), settings.check_mark)
    return Report(
        project=project.name,
        made_at=utc_now(),
        annotations=total,
        used=len(work.user),
        overlap=project.overlap,
        repeat_share=settings.repeat_share,
        questions=tuple(question for question, _ in shared),
        headline=headline[0].name if headline else None,
        people=_people(work, leanings, reading.turned_down(session, project), headline, names, checks),
        first=_sum(one.first for one in leanings.values()),
        longer=_sum(one.longer for one in leanings.values()),
        writers=tuple(reading.writers(session, window)),
    )


_Asked = tuple[Question, Units]


class _Checks(NamedTuple):
    scores: Mapping[int, CheckScore]
    mark: float


def _names(session: Session) -> dict[int, str]:
    return dict(session.execute(select(User.id, User.name)).all())


def _comparisons(units: Units, names: Mapping[int, str]) -> _Asked:
    beside = _by_name(beside_others(units, units.value), names)
    # Whether one's choices are numbered higher or lower than another's means nothing.
    beside = {name: one._replace(offset=None) for name, one in beside.items()}
    return _question(COMPARISONS, Metric.NOMINAL, None, units, beside), units


def _criterion(criterion: Criterion, units: Units, names: Mapping[int, str]) -> _Asked:
    bands = _bands(units.value, criterion.low, criterion.high)
    metric = Metric.ORDINAL if criterion.high - criterion.low < ORDINAL_STEPS else Metric.INTERVAL
    beside = _by_name(beside_others(units, bands), names)
    scale = criterion.low, criterion.high
    return _question(criterion.name, metric, scale, units, beside), units.with_values(bands)


def _question(
    name: str, metric: Metric, scale: tuple[int, int] | None, units: Units, beside: Mapping[str, Beside]
) -> Question:
    judgements = int(units.weight.sum())
    return Question(name, metric, scale, alpha(units, metric), int(units.count.sum()), judgements, beside)


def _bands(value: Ints, low: int, high: int) -> Ints:
    """Values as they are on short scales, in equal bands on long ones."""
    return value if high - low < ORDINAL_STEPS else (value - low) * _BANDS // (high - low + 1)


def _by_name(beside: Mapping[int, Beside], names: Mapping[int, str]) -> dict[str, Beside]:
    return {names[user]: beside[user] for user in sorted(beside, key=lambda one: names[one])}


def _headline(shared: list[_Asked]) -> _Asked | None:
    """Comparisons where there are any, else the criterion most often judged twice."""
    if not shared:
        return None
    return shared[0] if shared[0][0].name == COMPARISONS else max(shared, key=lambda one: one[0].things)


def _people(
    work: reading.Work,
    leanings: Mapping[int, Leanings],
    turned: Mapping[int, Turned],
    headline: _Asked | None,
    names: Mapping[int, str],
    checks: _Checks,
) -> tuple[Person, ...]:
    found = dawid_skene(headline[1]) if headline else None
    raters = set(found.raters.tolist()) if found else set()
    people = []
    for user in {int(one) for one in np.unique(work.user)} | turned.keys():
        mine = work.user == user
        beside = headline[0].beside.get(names[user]) if headline else None
        habits = leanings.get(user, _NOTHING)
        score = checks.scores.get(user, CheckScore(None, 0))
        people.append(
            Person(
                name=names[user],
                annotations=int(mine.sum()),
                days=len(np.unique(work.day[mine & (work.day >= 0)])),
                median_seconds=_median(work.seconds[mine]),
                majority=beside.majority if beside else Share(0, 0),
                reliability=found.of(user) if found and user in raters else None,
                first=habits.first,
                longer=habits.longer,
                turned=turned.get(user, Turned(0, 0, 0)),
                checks=score,
                too_low=score.below(checks.mark),
            )
        )
    return tuple(sorted(people, key=lambda one: (-one.annotations, one.name)))


def _median(seconds: Floats) -> float | None:
    known = seconds[~np.isnan(seconds)]
    return float(np.median(known)) if len(known) else None


def _sum(shares: Any) -> Share:
    listed = list(shares)
    return Share(sum(one.hits for one in listed), sum(one.total for one in listed))
