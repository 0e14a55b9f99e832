"""The route of /compare: two to four versions side by side; a plain page that needs no script."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from feedback_app.handlers.compare import CompareView, see_comparison
from feedback_app.handlers.context import Context
from feedback_app.i18n import listed, message, named, plural, said, sentence, t
from feedback_app.pages import chance
from feedback_app.pages.curves import curves, lines_of
from feedback_app.pages.lineage import address_of as lineage_of
from feedback_app.pages.lineage import shortened
from feedback_app.pages.plain import page
from feedback_app.pages.render import number
from feedback_app.pages.spread import spread_rows
from feedback_app.plots import ACCURACY, LOSS
from feedback_app.security import signed_in
from storage.comparing import CHANGES, Changed, Comparison, Measured, Side, Written
from storage.enums import ModelKind
from storage.evaluations import Figure
from storage.models import ModelVersion
from storage.seeds import OverSeeds
from storage.snapshot_diff import Cause, RowChange

Chosen = Annotated[list[str] | None, Query(max_length=20)]
Before = Annotated[int | None, Query(ge=0, le=2**31 - 1)]


class CompareRoutes:
    """The route with the context it needs."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.router = APIRouter(include_in_schema=False)
        self.router.add_api_route("/compare/{project}", self.show, methods=["GET"], response_model=None)

    async def show(self, request: Request, project: str, v: Chosen = None, before: Before = None) -> Response:
        """The chosen versions, `?v=policy-v1&v=policy-v2`, side by side, and the choice."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return RedirectResponse(f"/login?next={quote(address_of(project, v or []), safe='')}", 303)
        view = await anyio.to_thread.run_sync(see_comparison, self.ctx, user.name, project, v or [], before)
        comparison = view.comparison
        here = address_of(view.project, view.chosen)
        return page(
            "compare",
            t("Compare versions"),
            wide=True,
            status=422 if view.problem else 200,
            problem=said(view.problem) if view.problem else "",
            lead=f"\u2068{view.project}\u2069",
            address=address_of(view.project, []),
            choices=[
                {"name": one.name, "status": t(one.status.value), "chosen": one.name in view.chosen}
                for one in sorted(view.versions, key=lambda one: (one.kind, one.number))
            ],
            head=[{"name": one, "link": lineage_of(view.project, one)} for one in view.chosen],
            found=_found(comparison) if comparison else None,
            policies=comparison is not None and comparison.sides[0].version.kind is ModelKind.POLICY,
            texts=_texts(view),
            probabilities=chance.note(view.chances, view.page.rows),
            older=f"{here}&before={view.page.before}#texts" if view.page.before else "",
        )


def address_of(project: str, versions: list[str]) -> str:
    """Where these versions are shown side by side."""
    query = urlencode([("v", one) for one in versions])
    return f"/compare/{quote(project, safe='')}" + (f"?{query}" if query else "")


def _found(comparison: Comparison) -> dict[str, Any]:
    return {
        "states": [*_states(comparison.sides), *(_measured(one, comparison.sides) for one in comparison.evaluated)],
        "notes": _notes(comparison),
        "seeds": [_seeds(one) for one in comparison.seeds],
        "trained": [_measured(one, comparison.sides) for one in comparison.trained],
        "curves": _curves(comparison),
        "settings": [
            {"name": named(one.name), "cells": [_cell(_shown(value)) for value in one.values]}
            for one in comparison.settings
        ],
        "alike": plural(comparison.alike, "{n} setting is the same.", "{n} settings are the same."),
        "data": [_changed(one, comparison.sides[0].version.name) for one in comparison.data],
    }


def _cell(value: str, *lines: str) -> dict[str, Any]:
    return {"value": value, "lines": [line for line in lines if line]}


def _shown(value: Any) -> str:
    return t(value) if isinstance(value, str) else number(value)


def _states(sides: list[Side]) -> list[dict[str, Any]]:
    status = [_cell(t(one.version.status.value), t("tainted") if one.version.tainted_at else "") for one in sides]
    gates = [_cell(t(one.gate.verdict.value) if one.gate else "–") for one in sides]
    return [{"name": t("status"), "cells": status}, {"name": t("gate"), "cells": gates}]


def _measured(one: Measured, sides: list[Side]) -> dict[str, Any]:
    return {
        "name": named(one.name),
        "cells": [_figure(value, side.rival) for value, side in zip(one.values, sides, strict=True)],
    }


def _figure(one: Figure | None, rival: ModelVersion | None) -> dict[str, Any]:
    """The value, its interval, and how far it is above that of `rival` on the same prompts."""
    if one is None or one.value is None:
        return _cell("–")
    interval = ""
    if one.low is not None and one.high is not None:
        interval = t("{low} to {high}", low=number(one.low), high=number(one.high))
    against = ""
    if rival is not None and one.difference is not None and one.difference[0] is not None:
        value, low, high = one.difference
        against = t("{value} against {version}", value=f"{value:+.3g}", version=rival.name)
        if low is not None and high is not None:
            against += " " + t("({low} to {high})", low=number(low), high=number(high))
    return _cell(number(one.value), interval, against)


def _notes(comparison: Comparison) -> list[str]:
    if not comparison.evaluated:
        return [t("None of them was evaluated yet: start an evaluation on the Models tab.")]
    notes = [
        t("{version} was not evaluated yet.", version=one.version.name)
        for one in comparison.sides
        if one.evaluation is None
    ]
    rivals = {one.evaluation.champion_id for one in comparison.sides if one.evaluation is not None}
    if len(rivals) > 1:
        notes.append(t("They were not all evaluated against the same version: differences to it do not compare."))
    return notes


def _seeds(one: OverSeeds) -> dict[str, Any]:
    title = plural(
        len(one.versions),
        "Over {n} seed of the same recipe, settings and data: {versions}",
        "Over {n} seeds of the same recipe, settings and data: {versions}",
        versions=listed(one.versions),
    )
    told = spread_rows(one)
    empty = t("Fewer than two of them were evaluated against the same version.")
    return {"title": title, "rows": told, "empty": "" if told else empty}


def _curves(comparison: Comparison) -> list[dict[str, Any]]:
    names = [one.version.name for one in comparison.sides]
    series = [one.curves for one in comparison.sides]
    drawn = []
    for plot in (LOSS, ACCURACY):
        title = t(plot.title)
        training, validation = (metric for metric, _, _ in plot.lines)
        drawn.append({"title": title, "svg": curves(lines_of(series, names, training, validation), title)})
    return [one for one in drawn if one["svg"]]


def _texts(view: CompareView) -> list[dict[str, Any]]:
    return [
        {
            "prompt": shortened(one.messages[-1]["content"]),
            "texts": [
                {"name": name, "text": text, "chance": _chance(view, one, own)}
                for name, text, own in zip(view.chosen, one.texts, one.ids, strict=True)
            ],
        }
        for one in view.page.rows
    ]


def _chance(view: CompareView, one: Written, own: int | None) -> str:
    found = view.chances.of.get((own or 0, one.ids[0] or 0))
    return chance.over(found, view.chosen[0]) if found else ""


def _changed(one: Changed, first: str) -> dict[str, Any]:
    title = t("{version} beside {first}", version=one.version, first=first)
    if one.difference is None:
        return {"title": title, "told": sentence(message(one.why)), "rows": [], "settings": [], "more": ""}
    total, found = one.difference.total, one.difference
    told = t(
        "{added} rows added, {removed} removed, {changed} changed.",
        added=f"{total.added:,}", removed=f"{total.removed:,}", changed=f"{total.changed:,}",
    )  # fmt: skip
    labels = {"added": t("added"), "removed": t("removed"), "changed": t("changed")}
    rows = [
        _change(kind, labels[kind], change)
        for kind, changes in (("added", found.added), ("removed", found.removed), ("changed", found.changed))
        for change in changes
    ]
    more = max(total) > CHANGES
    return {
        "title": title,
        "told": told if any(total) else t("The same rows."),
        "settings": [
            t("{name}: {before} became {after}", name=named(name), before=number(before), after=number(after))
            for name, (before, after) in found.settings.items()
        ],
        "rows": rows,
        "more": t("The first of each; `feedback-app snapshots diff` lists them all.") if more else "",
    }


def _change(kind: str, label: str, change: RowChange) -> dict[str, Any]:
    row = change.after or change.before
    return {
        "kind": kind,
        "label": label,
        "prompt": shortened(row.prompt) if row else "",
        "causes": [_cause(cause) for cause in change.causes],
    }


def _cause(cause: Cause) -> dict[str, str]:
    what = t(cause.what) if cause.id is None else t("{what} {n}", what=t(cause.what), n=cause.id)
    link = f"/lineage/annotation/{cause.id}" if cause.what == "annotation" and cause.id is not None else ""
    return {"told": t("{what}: {why}", what=what, why=message(cause.happened)), "link": link}
