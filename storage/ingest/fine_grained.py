"""Fine-Grained RLHF (QA feedback): four predictions a question, six comparisons, error spans, a corrected prediction.

Errors, missing information and the correction are about prediction 1. Passages are numbered from 1; a passage is its
title followed by its sentences, so that sentence number n is its element n.
"""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

from storage.enums import Outcome
from storage.ingest.records import (
    BadRow,
    CritiqueMark,
    Judgement,
    Record,
    Row,
    checked_feedback,
    checked_text,
    require_different,
    text_of,
    value_of,
)

_PREDICTIONS = tuple(f"prediction {n}" for n in (1, 2, 3, 4))
_PAIRS = tuple(combinations(range(4), 2))
_OUTCOMES = {0: Outcome.TIE, 1: Outcome.FIRST, 2: Outcome.SECOND}
_SAYS = {
    "Irrelevant": "Irrelevant: this does not help to answer the question.",
    "Redundant": "Redundant: this was said before.",
    "Unverifiable": "Unverifiable: the passages do not say this.",
    "Wrong-Grounding": "Wrong: the passages say something else.",
    "Incoherent": "Incoherent: this cannot be understood.",
    "Missing-Answer": "Missing: the answer itself.",
    "Missing-Major-Auxiliary": "Missing: something important beside the answer.",
    "Missing-Minor-Auxiliary": "Missing: something useful beside the answer.",
}
Passages = list[list[str]]


def parse(row: Row) -> Record:
    """One item a comparison, and one of prediction 1 alone that carries the critiques and the refinement."""
    passages = _passages(row)
    texts = tuple(text_of(row, name) for name in _PREDICTIONS)
    feedback = row.get("feedback") or {}
    if not isinstance(feedback, dict):
        raise BadRow("'feedback' is not an object")
    judgements = [*_comparisons(row, texts)]
    critiques = (*_errors(feedback, texts[0], passages), *_missing(feedback, passages))
    correction = _correction(feedback, texts[0])
    if critiques or correction:
        judgements.append(Judgement((0,), critiques=critiques, refinements=correction))
    return Record([{"role": "user", "content": _prompt(row, passages)}], texts, tuple(judgements))


def _passages(row: Row) -> Passages:
    passages = row.get("passages") or []
    if not isinstance(passages, list) or not all(
        isinstance(passage, list) and passage and all(isinstance(sentence, str) for sentence in passage)
        for passage in passages
    ):
        raise BadRow("'passages' is not a list of lists of sentences")
    return passages


def _prompt(row: Row, passages: Passages) -> str:
    """The question stands last, so that a prompt shortened from the left keeps it."""
    question = text_of(row, "question").strip()
    if not passages:
        return question
    parts = ["Answer the question from the passages."]
    for number, (title, *sentences) in enumerate(passages, start=1):
        body = " ".join(sentence.removeprefix(f"{title}\n\n").strip() for sentence in sentences)
        parts.append(f"Passage {number}: {title}\n{body}")
    return checked_text("\n\n".join([*parts, f"Question: {question}"]), "passages")


def _comparisons(row: Row, texts: tuple[str, ...]) -> list[Judgement]:
    outcomes = value_of(row, "preference")
    if not isinstance(outcomes, list) or len(outcomes) != len(_PAIRS):
        raise BadRow("'preference' does not hold six outcomes")
    judgements = []
    for pair, value in zip(_PAIRS, outcomes, strict=True):
        if not isinstance(value, int) or value not in _OUTCOMES:
            raise BadRow("'preference' holds an outcome that is not 0, 1 or 2")
        require_different(texts[pair[0]], texts[pair[1]])
        judgements.append(Judgement(pair, outcome=_OUTCOMES[value]))
    return judgements


def _errors(feedback: dict[str, Any], text: str, passages: Passages) -> list[CritiqueMark]:
    marks = []
    for error in _objects(feedback, "errors"):
        kind, start, end = error.get("error type"), error.get("start"), error.get("end")
        if not isinstance(kind, str) or not isinstance(start, int) or not isinstance(end, int):
            raise BadRow("'errors' holds one without error type, start and end")
        if not 0 <= start < end <= len(text):
            raise BadRow(f"an error's span {start} to {end} is outside the text")
        marks.append(CritiqueMark(0, _words(kind, _explained(error.get("explanation"), passages)), start, end, (kind,)))
    return marks


def _missing(feedback: dict[str, Any], passages: Passages) -> list[CritiqueMark]:
    marks = []
    for missing in _objects(feedback, "missing-info"):
        kind = missing.get("error type")
        if not isinstance(kind, str):
            raise BadRow("'missing-info' holds one without error type")
        marks.append(CritiqueMark(0, _words(kind, _quoted(missing, passages)), tags=(kind,)))
    return marks


def _correction(feedback: dict[str, Any], text: str) -> tuple[tuple[int, str], ...]:
    correction = feedback.get("corrected-prediction") or ""
    if not isinstance(correction, str):
        raise BadRow("'corrected-prediction' is not a text")
    correction = correction.strip()
    if not correction or correction == text.strip():
        return ()
    return ((0, checked_feedback(correction, "corrected-prediction")),)


def _objects(feedback: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = feedback.get(name) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadRow(f"'{name}' is not a list of objects")
    return entries


def _explained(explanation: Any, passages: Passages) -> str:
    """What the annotator gave as the reason: a text, or a place in the passages written as JSON."""
    if not isinstance(explanation, str):
        return ""
    try:
        place = json.loads(explanation)
    except ValueError:
        return explanation.strip()
    return _quoted(place, passages) if isinstance(place, dict) else explanation.strip()


def _quoted(place: dict[str, Any], passages: Passages) -> str:
    try:
        passage = passages[int(place["passage_id"]) - 1]
        return " ".join(passage[int(number)].strip() for number in place["sentence_id"])
    except (KeyError, IndexError, TypeError, ValueError):
        return ""  # the place is an illustration; the critique stands without it


def _words(kind: str, reason: str) -> str:
    says = _SAYS.get(kind, kind)
    return checked_feedback(f'{says} "{reason}"' if reason else says, "explanation")
