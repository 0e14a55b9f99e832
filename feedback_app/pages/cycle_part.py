"""A cycle on the Runs tab: its steps, each with the run that did it and what came of it."""

from __future__ import annotations

from html import escape
from typing import Any

from feedback_app.handlers.runs import RunView
from feedback_app.i18n import message, named, sentence, t
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from storage.enums import RunKind, RunStatus
from storage.models import Run
from storage.schedule import Due


def steps(chosen: RunView) -> Markup:
    """The steps of a cycle in order; nothing for other runs. A row leads to the run of the step."""
    run = chosen.run
    if run.kind is not RunKind.CYCLE:
        return Markup("")
    runs = {child.id: child for child in chosen.children}
    rows = []
    for one in (run.result or {}).get("steps", []):
        child = runs.get(one.get("run"))
        link = {"data-run": str(child.id), "tabindex": "0"} if child is not None else {}
        told = _told(one, child)
        state = "queued" if child is not None and child.status is RunStatus.QUEUED else one["state"]
        rows.append(Row([t(one["step"]), render.badge(state), told], link))
    return Markup(
        f'<div class="op-steps">{render.table([t("step"), t("status"), t("what came of it")], rows, "")}</div>'
    )


def _told(step: dict[str, Any], child: Run | None) -> Markup:
    parts = [t("run {number}", number=child.id)] if child is not None else []
    if child is not None and child.kind.value != step["step"]:
        parts.append(t(child.kind.value))
    if version := step.get("model_version"):
        parts.append(t("made {version}", version=str(version)))
    if verdict := step.get("verdict"):
        parts.append(t(str(verdict)))
    parts += [f"{named(name)} {render.number(value)}" for name, value in (step.get("figures") or {}).items()]
    line = escape(" · ".join(parts))
    if why := step.get("why"):
        told = " ".join(sentence(message(str(one))) for one in step.get("reasons") or [why])
        line += f'<p class="op-muted">{escape(told)}</p>'
    return Markup(line or "–")


def due(found: Due | None) -> Markup:
    """Whether the project starts something by itself now, and what it waits for."""
    if found is None:
        return Markup("")
    told = t("By itself: {what}", what=sentence(message(found.reason)))
    return Markup(f'<p class="op-muted" id="op-runs-due">{escape(told)}</p>{refused(found)}')


def refused(found: Due) -> Markup:
    """Why what is due has not started."""
    if not found.refused:
        return Markup("")
    why = " ".join(sentence(message(one)) for one in found.refused)
    return render.note(t("It is due, but did not start: {why}", why=why), "warn")
