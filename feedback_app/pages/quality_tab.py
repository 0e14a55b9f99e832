"""The Quality tab: how far people agree, how each annotator stands, habits, and what is criticised."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from feedback_app import quality_words as words
from feedback_app.handlers import quality as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.quality import QualityView
from feedback_app.i18n import clock, later, said, t
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import SLOW_LOOK, event
from storage.errors import FeedbackError
from storage.quality import Person, Question, Report, Share
from storage.quality.reading import Writer

# A project is chosen on every tab: figures are worked out only where they are looked at.
_JS_IF_SEEN = "(project) => [document.getElementById('op-quality')?.offsetParent ? project : null]"
_TAGS = 6  # shown of one writer


class QualityTab:
    """The tab's one component."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        self.figures = gr.HTML(render.note(later("Working out the figures …")), elem_id="op-quality", js_on_load=None)

    def connect(self, ctx: Context, head: gr.Tab) -> None:
        """Wire the tab's events: it is filled when it is opened, and when another project is chosen meanwhile."""

        def look(name: str | None, project: str | None) -> Any:
            if not project:
                return gr.skip()
            try:
                return show(handlers.see_quality(ctx, name, project))
            except FeedbackError as error:
                return render.note(said(error), "bad")

        quiet: dict[str, Any] = {"concurrency_limit": 1, **SLOW_LOOK}
        opened = event(look)
        head.select(opened, [self.project], [self.figures], concurrency_id="quality", **quiet)
        self.project.change(
            opened, [self.project], [self.figures], js=_JS_IF_SEEN, concurrency_id="quality", **quiet
        )  # fmt: skip


def show(view: QualityView) -> str:
    """The tab as HTML."""
    report = view.report
    if report is None:
        return render.note(t("Create a project first, on the Project tab."))
    if not report.annotations and not report.people:
        return _card(t("Quality"), render.note(words.no_annotations()))
    told = t("{what}, as of {time}. Bars are 95 % intervals.", what=words.rests_on(report), time=clock(view.now))
    habits = _habit(t("Position"), report.first, words.position(report.first))
    habits += _habit(t("Length"), report.longer, words.length(report.longer))
    return (
        f'<p class="op-muted op-rests">{escape(told)}</p>'
        + _card(t("Do people agree?"), _agreement(report))
        + _card(t("Each annotator"), _people(report))
        + _card(t("Habits"), habits)
        + _card(t("What is criticised, by who wrote it"), _writers(report.writers))
    )


def _card(title: str, body: str) -> str:
    return f'<section class="op-card op-figures"><h3>{escape(title)}</h3>{body}</section>'


def _agreement(report: Report) -> str:
    if not report.questions:
        return render.note(words.no_agreement())
    scale = t(
        "Krippendorff's alpha: 1 is perfect agreement, 0 is chance. Rely on 0.8 and more; from 0.67 on, draw tentative "
        "conclusions."
    )
    return "".join(_question(one) for one in report.questions) + f'<p class="op-muted">{scale}</p>'


def _question(question: Question) -> str:
    picture = ""
    if question.alpha is not None:
        value, low, high = question.alpha
        label = t("alpha {interval}", interval=words.interval(question.alpha))
        picture = _range(value, low, high, label, marks=(words.FAIR, words.GOOD), grade=words.grade(question))
    return (
        f'<div class="op-figure"><div class="op-figure-head"><b>{escape(words.named(question.name))}</b>'
        f"<span>{escape(words.basis(question))}</span></div>{picture}<p>{escape(words.agreement(question))}</p></div>"
    )


def _habit(title: str, share: Share, told: str) -> str:
    picture = ""
    if share.value is not None:
        low, high = share.bounds
        grade = "poor" if share.leans() else "good"
        picture = _range(share.value, low, high, words.percent(share), marks=(0.5,), grade=grade)
    return (
        f'<div class="op-figure"><div class="op-figure-head"><b>{escape(title)}</b></div>{picture}'
        f"<p>{escape(told)}</p></div>"
    )


def _range(value: float, low: float, high: float, label: str, marks: tuple[float, ...], grade: str) -> Markup:
    """A point with its interval on a line from 0 to 1; what lies outside is drawn at the end."""
    place = [min(max(one, 0.0), 1.0) for one in (value, low, high)]
    lines = "".join(f'<s style="left:{100 * mark:.1f}%"></s>' for mark in marks)
    return Markup(
        f'<div class="op-range" data-grade="{grade}" role="img" aria-label="{escape(label)}">{lines}'
        f'<span style="left:{100 * place[1]:.1f}%;width:{100 * (place[2] - place[1]):.1f}%"></span>'
        f'<i style="left:{100 * place[0]:.1f}%"></i></div>'
    )


def _people(report: Report) -> str:
    columns = (
        t("annotator"), t("annotations"), t("a day"), t("median time"), t("with the others"), t("reliability"),
        t("chose the first"), t("chose the longer"), t("skipped"), t("checks"),
    )  # fmt: skip
    table = render.table(columns, [Row(_person(one)) for one in report.people], words.no_annotations())
    table = Markup(f'<div class="op-people">{table}</div>')
    if report.headline is None:
        return table
    told = t(
        '"With the others" and reliability are of {question}: how often somebody says what the majority of the others '
        "says, and how likely they are to say what is true by Dawid and Skene's method, which knows no truth and "
        "infers it from everybody. A day is one with at least one annotation.",
        question=words.named(report.headline),
    )
    return table + Markup(f'<p class="op-muted">{escape(told, quote=False)}</p>')


def _person(person: Person) -> list[Any]:
    closed, skipped, flagged = person.turned
    return [
        Markup(f"<b>{escape(person.name)}</b>"),
        f"{person.annotations:,}",
        f"{person.annotations / person.days:,.0f}" if person.days else "–",
        "–" if person.median_seconds is None else render.duration(person.median_seconds),
        _share(person.majority),
        "–" if person.reliability is None else f"{person.reliability:.2f}",
        _share(person.first, fair=True),
        _share(person.longer, fair=True),
        f"{skipped / closed:.0%}" + (t(" ({n} flagged)", n=f"{flagged:,}") if flagged else "") if closed else "–",
        _checks(person),
    ]


def _checks(person: Person) -> Markup | str:
    """How somebody does on attention checks (the Gold tab says more)."""
    score, number = person.checks
    if score is None:
        return "–"
    told = escape(t("{score} of {n}", score=f"{score:.0%}", n=number))
    low = f' <span class="op-badge" data-status="failed">{escape(t("too low"))}</span>' if person.too_low else ""
    return Markup(told + low)


def _share(share: Share, fair: bool = False) -> Markup:
    """A share with its interval as a small picture; with `fair`, half is the mark and a lean is coloured."""
    if share.value is None:
        return Markup("–")
    low, high = share.bounds
    grade = "poor" if fair and share.leans() else "good"
    picture = _range(share.value, low, high, words.percent(share), marks=(0.5,) if fair else (), grade=grade)
    told = t("{share} of {n}", share=words.percent(share), n=f"{share.total:,}")
    return Markup(f'<div class="op-share" title="{escape(told)}"><span>{share.value:.0%}</span>{picture}</div>')


def _writers(writers: tuple[Writer, ...]) -> str:
    if not any(one.criticised for one in writers):
        return render.note(words.no_critiques())
    rows = []
    for one in writers:
        often = sorted(one.tags.items(), key=lambda tag: (-tag[1], tag[0]))[:_TAGS]
        base = max(one.judged, 1)
        tags = " ".join(
            f'<span class="op-badge">{escape(tag)} {number / base:.1%}</span>' for tag, number in often
        )  # fmt: skip
        critiques = f"{one.criticised:,} ({one.criticised / base:.0%})"
        rows.append(Row([Markup(f"<b>{escape(t(one.name))}</b>"), f"{one.judged:,}", critiques, Markup(tags or "–")]))
    columns = (t("written by"), t("judged"), t("critiques"), t("tags, of all judged"))
    return render.table(columns, rows, words.no_critiques())
