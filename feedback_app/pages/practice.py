"""The part of the annotate page that stands between practice items: what is asked, what was right, how it went."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from feedback_app.handlers.practice import Lesson
from feedback_app.i18n import later, plural, t
from feedback_app.pages.theme import LATEX
from storage.gold import GoldComparison, Part, Sort
from storage.models import Criterion
from storage.practice import Answer

_LETTERS = "ABCDEFGH"
_EXCERPT = 160  # characters of a prompt, to know the item by


class LessonPart:
    """A heading with what was right, a text (guidelines or explanations), and the button that goes on."""

    def __init__(self) -> None:
        with gr.Column(elem_id="fb-lesson"):
            self.head = gr.HTML("", elem_id="fb-lesson-head", js_on_load=None)
            self.text = gr.Markdown("", latex_delimiters=LATEX, elem_id="fb-lesson-text")
            self.go = gr.Button(later("Start practice"), variant="primary", elem_id="fb-go")

    @property
    def outputs(self) -> list[Any]:
        """What a step of the practice changes, in the order of `values`."""
        return [self.head, self.text, self.go]


def values(lesson: Lesson | None, guidelines: str, criteria: Sequence[Criterion]) -> list[Any]:
    """The values of `LessonPart.outputs`; empty, and not to be seen, while items are in hand."""
    if lesson is None or lesson.state in ("item", "none"):
        return ["", "", t("Start practice")]
    names = {one.id: one.name for one in criteria}
    words = {
        "intro": t("Start practice"),
        "answer": t("Next item"),
        "passed": t("Start annotating"),
        "failed": t("Practise again"),
    }
    return [_head(lesson, names), _text(lesson, guidelines), words[lesson.state]]


def banner(lesson: Lesson) -> str:
    """What stands in place of the day's progress while a practice item is in hand."""
    told = t("Practice item {number} of {size}", number=lesson.round.done + 1, size=lesson.round.size)
    return f'<p class="fb-progress"><span><b>{escape(told)}</b></span></p>'


def _head(lesson: Lesson, names: dict[int, str]) -> str:
    state = lesson.round
    mark = f"{state.mark:.0%}"
    if lesson.state == "intro":
        told = plural(
            state.size,
            "Before the queue opens to you, you judge one item of which the right answer is known.",
            "Before the queue opens to you, you judge {n} items of which the right answers are known.",
        )
        how = t("After each you see what is right and why. {mark} passes; you may try as often as you like.", mark=mark)
        return _heading(t("Practice first"), f"{told} {how}")
    if lesson.state == "answer":
        (answer,) = lesson.answers
        where = t("Practice item {number} of {size}", number=state.done, size=state.size)
        return _heading(_verdict(answer), where, answer.judged.score) + _table(answer, names)
    score = f"{state.score or 0:.0%}"
    if lesson.state == "passed":
        title, told = t("You passed"), t("{score} of the practice was right; the queue is open to you.", score=score)
        return _heading(title, told, state.score) + _last(lesson.answers, names)
    told = t("{score} was right, {mark} passes. This is what went wrong:", score=score, mark=mark)
    wrong = [(number, one) for number, one in _numbered(lesson.answers) if one.judged.score < 1]
    return _heading(t("Not passed yet"), told, state.score) + "".join(
        f"<h3>{escape(t('Item {number}', number=number))}</h3><p class='fb-lesson-prompt'>{escape(_excerpt(one))}</p>"
        + _table(one, names)
        for number, one in wrong
    )


def _heading(title: str, told: str, score: float | None = None) -> str:
    grade = "" if score is None else ' data-grade="good"' if score >= 1 - 1e-9 else ' data-grade="poor"'
    return f'<div role="status"{grade}><h2>{escape(title)}</h2><p>{escape(told)}</p></div>'


def _verdict(answer: Answer) -> str:
    if answer.judged.score >= 1 - 1e-9:
        return t("Right")
    return t("Not right") if answer.judged.score <= 1e-9 else t("Partly right")


def _last(answers: Sequence[Answer], names: dict[int, str]) -> str:
    return f"<h3>{escape(t('The last item'))}</h3>" + _table(answers[-1], names) if answers else ""


def _numbered(answers: Sequence[Answer]) -> list[tuple[int, Answer]]:
    return list(enumerate(answers, start=1))


def _excerpt(answer: Answer) -> str:
    text = " ".join(answer.prompt.split())
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


def _text(lesson: Lesson, guidelines: str) -> str:
    """Markdown: the guidelines before the first item, later the explanations."""
    if lesson.state == "intro":
        return guidelines or f"*{t('This project has no guidelines yet.')}*"
    if lesson.state != "failed":
        return lesson.answers[-1].explanation if lesson.answers else ""
    told = [
        f"**{t('Item {number}', number=number)}**\n\n{one.explanation}"
        for number, one in _numbered(lesson.answers)
        if one.judged.score < 1 and one.explanation
    ]
    return "\n\n".join(told)


# --- what was said, and what is right ---


def _table(answer: Answer, names: dict[int, str]) -> str:
    heads = "".join(f"<th scope='col'>{escape(one)}</th>" for one in ("", t("you said"), t("right is"), ""))
    rows = "".join(_row(part, answer.shown_order, names) for part in answer.judged.parts)
    return f"<table class='fb-lesson-table'><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _row(part: Part, order: list[int], names: dict[int, str]) -> str:
    about, said, right = _words(part, order, names)
    grade, mark, told = ("good", "✓", t("right")) if part.points >= 1 - 1e-9 else ("poor", "✗", t("wrong"))
    if grade == "poor" and part.points > 0:
        mark, told = f"{part.points:.0%}", t("partly right")
    cells = f"<th scope='row'>{escape(about)}</th><td>{escape(said)}</td><td>{escape(right)}</td>"
    return f"<tr>{cells}<td data-grade='{grade}'><span role='img' aria-label='{escape(told)}'>{mark}</span></td></tr>"


def _words(part: Part, order: list[int], names: dict[int, str]) -> tuple[str, str, str]:
    """What it is about, what was said and what is right, in words."""
    letter = "" if part.completion_id is None else _letter(part.completion_id, order)
    nothing = t("nothing")
    if part.sort is Sort.COMPARISON:
        right = _outcome(part.right, order)
        if part.right.tie_allowed:
            right = t("{outcome}, or a tie", outcome=right)
        return t("Which is better?"), _outcome(part.said, order) if part.said else nothing, right
    if part.sort is Sort.RATING:
        name = names.get(part.criterion_id or 0, "")
        right = str(part.right)
        if part.tolerance:
            right = t("{value}, give or take {tolerance}", value=part.right, tolerance=part.tolerance)
        about = t("{criterion} of {letter}", criterion=name, letter=letter)
        return about, nothing if part.said is None else str(part.said), right
    if part.sort is Sort.RANKING:
        return t("Order"), _ranking(part.said, order) if part.said else nothing, _ranking(part.right, order)
    return t("Tag of {letter}", letter=letter), part.said or nothing, part.right


def _letter(completion_id: int, order: list[int]) -> str:
    return _LETTERS[order.index(completion_id)] if completion_id in order else "?"


def _outcome(compared: GoldComparison, order: list[int]) -> str:
    if compared.better is not None:
        return t("{letter} is better", letter=_letter(compared.better, order))
    return t("Both bad") if compared.both_bad else t("Tie")


def _ranking(ranks: dict[int, int], order: list[int]) -> str:
    """`B > A = C`."""
    groups: dict[int, list[str]] = {}
    for completion_id, rank in ranks.items():
        groups.setdefault(rank, []).append(_letter(completion_id, order))
    return " > ".join(" = ".join(sorted(groups[rank])) for rank in sorted(groups))
