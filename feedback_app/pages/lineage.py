"""Routes of /lineage: what trained a version, what learned from an annotation, and training again; plain pages."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from feedback_app.handlers import lineage as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.lineage import AnnotationLineage, Pair, VersionLineage
from feedback_app.i18n import day, listed, moment, plural, said, t
from feedback_app.pages import chance
from feedback_app.pages.plain import page
from feedback_app.security import signed_in
from feedback_app.zipped import zipped
from storage.chances import Chances
from storage.enums import Outcome, RunStatus
from storage.errors import FeedbackError
from storage.lineage import Learned, Rewritten, Taught
from storage.models import Critique, ModelVersion, Run

_PROMPT = 300  # characters of a prompt
After = Annotated[int, Query(ge=0, le=2**31 - 1)]


class LineageRoutes:
    """The routes with the context they share."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.router = APIRouter(include_in_schema=False)
        for path, method, route in (
            ("/lineage/annotation/{annotation}", "GET", self.annotation),
            ("/lineage/{project}/{version}", "GET", self.version),
            ("/lineage/{project}/{version}/rebuild", "POST", self.rebuild),
            ("/lineage/{project}/{version}/adapter.zip", "GET", self.download),
        ):
            self.router.add_api_route(path, route, methods=[method], response_model=None)

    async def version(
        self, request: Request, project: str, version: str, after: After = 0, tainted: bool = False
    ) -> Response:
        """A version's lineage, and a page of the rows that trained it."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _to_login(address_of(project, version))
        return await self._version(user.name, project, version, after, tainted)

    async def annotation(self, request: Request, annotation: str) -> Response:
        """What learned from an annotation."""
        if not annotation.isdecimal():  # a version of a project that is called so
            return await self.version(request, "annotation", annotation)
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _to_login(f"/lineage/annotation/{annotation}")
        number = min(int(annotation[:12]), 2**31 - 1)
        found = await anyio.to_thread.run_sync(handlers.see_annotation, self.ctx, user.name, number)
        return _annotation_page(found)

    async def rebuild(self, request: Request, project: str, version: str) -> Response:
        """Train a tainted version again."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _to_login(address_of(project, version))
        try:
            await anyio.to_thread.run_sync(handlers.rebuild, self.ctx, user.name, project, version)
        except FeedbackError as error:
            return await self._version(user.name, project, version, problem=said(error), status=422)
        return RedirectResponse(address_of(project, version), 303)

    async def download(self, request: Request, project: str, version: str) -> Response:
        """A version's adapter and card as one archive, written while it is sent."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _to_login(address_of(project, version))
        files = await anyio.to_thread.run_sync(handlers.download, self.ctx, user.name, project, version)
        name = re.sub(r"[^\w-]+", "-", f"{project}-{version}", flags=re.ASCII).strip("-")
        headers = {"content-disposition": f'attachment; filename="{name}.zip"'}
        return StreamingResponse(zipped(files), headers=headers, media_type="application/zip")

    async def _version(
        self, name: str, project: str, version: str, after: int = 0, tainted: bool = False, **more: Any
    ) -> Response:
        view = await anyio.to_thread.run_sync(handlers.see_version, self.ctx, name, project, version, after, tainted)
        here = address_of(view.project, view.version.name)
        only = "tainted=1&" if tainted else ""
        return page(
            "lineage",
            t("Lineage of {version}", version=view.version.name),
            wide=True,
            lead=_lead(view),
            address=here,
            tainted=_tainted(view),
            download=f"{here}/adapter.zip" if view.version.folder else "",
            stations=_stations(view, here),
            chain=[_link(one, view.project) | {"how": _made(one)} for one in view.line.chain[1:]]
            or [{"link": here, "name": view.version.base_model, "tags": [], "how": t("the base model itself")}],
            rows=None if view.line.snapshot is None else [_row(one, view.chances) for one in view.page.rows],
            probabilities=chance.note(view.chances, [one for one in view.page.rows if one.rejected is not None]),
            picks=_picks(view, here, tainted),
            older=f"{here}?{only}after={view.page.after}#rows" if view.page.after else "",
            later=f"{here}?{only.rstrip('&')}#rows" if after else "",
            **more,
        )


def address_of(project: str, version: str) -> str:
    """Where the lineage of a version is shown."""
    return f"/lineage/{quote(project, safe='')}/{quote(version, safe='')}"


def _to_login(path: str) -> Response:
    return RedirectResponse(f"/login?next={quote(path, safe='')}", 303)


def _lead(view: VersionLineage) -> str:
    parts = [f"\u2068{view.project}\u2069", t(view.version.status.value), day(view.version.created_at)]
    if view.rebuild_of:
        parts.append(t("rebuilt from {version}", version=view.rebuild_of))
    return " · ".join(parts)


def _tainted(view: VersionLineage) -> dict[str, str] | None:
    """What was taken back, and where the version without it stands."""
    if view.standing.since is None:
        return None
    told = plural(
        view.standing.withdrawn,
        "Tainted since {when}: {n} annotation that trained it was withdrawn or erased.",
        "Tainted since {when}: {n} annotations that trained it were withdrawn or erased.",
        when=moment(view.standing.since),
    )
    if view.standing.through:
        told += " " + t("Through: {versions}.", versions=listed(view.standing.through))
    if (rebuilt := rebuilding(view.project, view.rebuilds, view.rebuilt_as)) is not None:
        return {"told": told, "rebuilt": rebuilt[0], "link": rebuilt[1]}
    if view.rebuilds and view.rebuilds[-1].status is not RunStatus.SUCCEEDED:
        last = view.rebuilds[-1]
        told += " " + t("The last try, run {run}, has {status}.", run=last.id, status=t(last.status.value))
    return {"told": told}


def rebuilding(project: str, rebuilds: list[Run], rebuilt_as: ModelVersion | None) -> tuple[str, str] | None:
    """What takes the place of a tainted version, and where it is shown; None where it can be trained again."""
    last = rebuilds[-1] if rebuilds else None
    if last is not None and not last.status.ended:
        return t("It is being trained again without them, in run {run}.", run=last.id), ""
    if rebuilt_as is not None:
        return t("{version} was trained without them.", version=rebuilt_as.name), address_of(project, rebuilt_as.name)
    return None


def _stations(view: VersionLineage, here: str) -> list[dict[str, Any]]:
    """The loop as it is drawn: annotations, snapshot, run, version, gate, completions."""
    line, basis = view.line, view.line.basis
    made = line.run is not None
    words = [
        plural(basis.critiques, "{n} critique", "{n} critiques") if basis.critiques else "",
        plural(basis.refinements, "{n} refinement", "{n} refinements") if basis.refinements else "",
        plural(basis.rules, "{n} rule", "{n} rules") if basis.rules else "",
    ]
    return [
        {
            "kind": "annotations",
            "title": t("Annotations"),
            "figure": f"{basis.annotations:,}" if made else "–",
            "link": f"{here}#rows" if basis.annotations else "",
            "lines": [word for word in words if word],
            "bad": t("{n} withdrawn since", n=f"{basis.withdrawn:,}") if basis.withdrawn else "",
        },
        {
            "kind": "snapshot",
            "title": t("Snapshot"),
            "figure": line.snapshot.content_hash[:12] if line.snapshot else "–",
            "lines": [plural(basis.rows, "{n} row", "{n} rows"), day(line.snapshot.created_at)]
            if line.snapshot
            else [],
        },
        {
            "kind": "run",
            "title": t("Run"),
            "figure": t("run {number}", number=line.run.id) if line.run else "–",
            "lines": [t(line.run.kind.value), t("seed {n}", n=line.run.seed)] if line.run else [t("no training")],
        },
        {
            "kind": "version",
            "title": t("Version"),
            "figure": view.version.name,
            "lines": [t(view.version.status.value), view.version.base_model],
            "bad": t("tainted") if view.version.tainted_at else "",
        },
        _gate(view),
        {
            "kind": "completions",
            "title": t("Completions"),
            "figure": f"{view.stands.completions:,}",
            "lines": [t("people judge them: the loop begins again")] if view.stands.completions else [],
        },
    ]


def _gate(view: VersionLineage) -> dict[str, Any]:
    stands = view.stands
    lines = [plural(stands.evaluations, "{n} evaluation", "{n} evaluations")] if stands.evaluations else []
    for one in stands.promotions:
        lines.append(t("promoted {day}", day=day(one.created_at)))
        if one.rolled_back_at is not None:
            lines.append(t("rolled back {day}", day=day(one.rolled_back_at)))
    figure = t(stands.gate.verdict.value) if stands.gate else t("not judged")
    return {"kind": "gate", "title": t("Gate and promotion"), "figure": figure, "lines": lines}


def _link(version: ModelVersion, project: str) -> dict[str, Any]:
    tags = [{"label": t(version.status.value), "bad": False}]
    if version.tainted_at:
        tags.append({"label": t("tainted"), "bad": True})
    return {"link": address_of(project, version.name), "name": version.name, "tags": tags}


def _made(version: ModelVersion) -> str:
    if version.run_id is None:
        return version.base_model
    return t("made {day} by run {run}", day=day(version.created_at), run=version.run_id)


def _picks(view: VersionLineage, here: str, tainted: bool) -> list[dict[str, Any]]:
    every = {"link": f"{here}#rows", "label": t("All rows"), "here": not tainted}
    if not (view.line.basis.withdrawn or tainted):
        return [every]
    return [every, {"link": f"{here}?tainted=1#rows", "label": t("Only what was taken back"), "here": tainted}]


def _row(one: Taught, known: Chances) -> dict[str, Any]:
    found = known.of.get((one.row.chosen_id, one.row.rejected_id or 0))
    facts = [t(one.row.split.value), t(one.row.source.value.replace("_", " "))]
    if one.row.weight != 1:
        facts.append(t("weight {n}", n=f"{one.row.weight:.2g}"))
    annotations = [
        {
            "id": said.id,
            "label": t("annotation {n} by {name}", n=said.id, name=f"\u2068{said.user}\u2069"),
            "gone": t("withdrawn") if said.withdrawn_at else t("revised") if said.superseded_by else "",
        }
        for said in one.annotations
    ]
    return {
        "prompt": shortened(one.row.prompt),
        "facts": " · ".join(facts),
        "chosen": one.chosen,
        "rejected": one.rejected,
        "chance": chance.of_chosen(found) if found else "",
        **_feedback(annotations, one.critiques, one.refinements, one.rules),
    }


def _feedback(
    annotations: list[dict[str, Any]], critiques: list[Critique], refinements: list[Rewritten], rules: list[str]
) -> dict[str, Any]:
    more = [
        t("refinement {n} by run {run}", n=one.id, run=one.run_id) if one.run_id else t("refinement by a person")
        for one in refinements
    ]
    more += [t("rule “{name}”", name=name) for name in rules]
    return {"annotations": annotations, "critiques": critiques, "more": more}


def _annotation_page(view: AnnotationLineage) -> Response:
    found = view.traced
    row = found.annotation
    used = {one.snapshot.id for one in found.learned if one.snapshot}
    gone = ""
    if row.withdrawn_at:
        gone = t("Withdrawn or erased on {day}: nothing trained from now on uses it.", day=day(row.withdrawn_at))
    elif row.superseded_by_id:
        gone = t("A newer annotation of the same person stands in its place.")
    return page(
        "traced",
        t("Annotation {n}", n=row.id),
        wide=True,
        lead=" · ".join(
            [
                f"\u2068{found.project.name}\u2069",
                f"\u2068{found.user}\u2069",
                day(row.submitted_at) if row.submitted_at else "–",
            ]
        ),
        gone=gone,
        prompt=shortened(found.prompt.messages[-1]["content"]),
        row=_feedback([], found.critiques, found.refinements, found.rules),
        compared=[_compared(one, view.chances) for one in view.compared],
        probabilities=chance.note(view.chances, view.compared),
        learned=[_link(one.version, found.project.name) | {"how": _how(one)} for one in found.learned],
        unused=[
            t("In snapshot {snapshot} of {day}, which no version was trained on.", snapshot=one.content_hash[:12],
              day=day(one.created_at))
            for one in found.snapshots
            if one.id not in used
        ],
        newer=row.superseded_by_id,
    )  # fmt: skip


def _compared(one: Pair, known: Chances) -> dict[str, str]:
    found = known.of.get((one.first.id, one.second.id))
    said = {
        Outcome.FIRST: t("{letter} is better", letter="A"),
        Outcome.SECOND: t("{letter} is better", letter="B"),
        Outcome.TIE: t("tie"),
        Outcome.BOTH_BAD: t("both bad"),
    }
    return {
        "a": one.first.text,
        "b": one.second.text,
        "said": said[one.outcome],
        "chance": t("A is better with a probability of {chance}", chance=chance.probability(found)) if found else "",
    }


def _how(one: Learned) -> str:
    if one.through:
        return t("through {version}, from which it was trained", version=one.through)
    ways = [plural(one.rows, "{n} row", "{n} rows")] if one.rows else []
    ways += [t("rule “{name}”", name=name) for name in one.rules]
    digest = one.snapshot.content_hash[:12] if one.snapshot else "–"
    return t("{what} of snapshot {snapshot}", what=listed(ways), snapshot=digest)


def shortened(text: str) -> str:
    """A text in one line that fits into a list."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _PROMPT else flat[: _PROMPT - 1] + "…"
