"""`feedback-app quality`: how far annotators agree, and how each of them stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

if TYPE_CHECKING:
    from storage.quality import Interval, Person, Question, Report, Share


def quality(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Agreement, each annotator beside the others, position and length bias, tags: of all annotations that count."""
    from storage.engine import read_only
    from storage.quality import quality_report

    with open_store() as store, read_only(store.sessions) as session:
        report = quality_report(session, pick_project(session, project))
    emit(_payload(report), as_json, *_lines(report))


def _lines(report: Report) -> list[Any]:
    from feedback_app import quality_words as words

    lines: list[Any] = [f"{report.project}: {words.rests_on(report)}", ""]
    lines += [words.agreement(one) for one in report.questions] or [words.no_agreement()]
    lines += [words.position(report.first), words.length(report.longer), ""]
    columns = (
        "annotator", "annotations", "median s", "with the others", "reliability", "chose first", "chose longer",
        "checks",
    )  # fmt: skip
    people = [
        (
            one.name, one.annotations, one.median_seconds, words.percent(one.majority), one.reliability,
            words.percent(one.first), words.percent(one.longer), _checks(one),
        )
        for one in report.people
    ]  # fmt: skip
    lines.append(table(columns, people))
    tags = [
        (one.name, one.judged, one.criticised, ", ".join(f"{tag} {number}" for tag, number in sorted(one.tags.items())))
        for one in report.writers
    ]
    lines.append(table(("written by", "judged", "critiques", "tags"), tags))
    return lines


def _checks(person: Person) -> str | None:
    score, number = person.checks
    return None if score is None else f"{score:.0%} of {number}{', too low' if person.too_low else ''}"


def _payload(report: Report) -> dict[str, Any]:
    return {
        "project": report.project,
        "annotations": report.annotations,
        "overlap": report.overlap,
        "repeat_share": report.repeat_share,
        "agreement": [_question(one) for one in report.questions],
        "headline": report.headline,
        "annotators": [_person(one) for one in report.people],
        "first": _share(report.first),
        "longer": _share(report.longer),
        "writers": [one._asdict() for one in report.writers],
    }


def _question(question: Question) -> dict[str, Any]:
    beside = {
        name: {"majority": _share(one.majority), "offset": _interval(one.offset)}
        for name, one in question.beside.items()
    }
    return {
        "name": question.name,
        "metric": question.metric,
        "alpha": _interval(question.alpha),
        "things": question.things,
        "judgements": question.judgements,
        "annotators": beside,
    }


def _person(person: Person) -> dict[str, Any]:
    return {
        "name": person.name,
        "annotations": person.annotations,
        "days": person.days,
        "median_seconds": person.median_seconds,
        "majority": _share(person.majority),
        "reliability": person.reliability,
        "first": _share(person.first),
        "longer": _share(person.longer),
        **person.turned._asdict(),
        "check_score": person.checks.score,
        "checks": person.checks.checks,
        "checks_too_low": person.too_low,
    }


def _interval(figure: Interval | None) -> dict[str, float] | None:
    return None if figure is None else figure._asdict()


def _share(share: Share) -> dict[str, Any]:
    low, high = share.bounds
    return {"value": share.value, "low": low, "high": high, "n": share.total}
